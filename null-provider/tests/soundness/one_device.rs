//! Rule 1: what works together is of one opened device.

use ibverbs::{Context, Error, Rc, Uc};
use null_provider::Verb;

use crate::common::{null, open};

fn refuses_a_queue_of(own: &Context, other: &Context) {
    let pd = own.alloc_pd().unwrap();
    let cq = own.create_cq(1).build().unwrap();
    let foreign = other.create_cq(1).build().unwrap();
    match pd.create_qp::<Rc>(&foreign, &cq, 1) {
        Err(Error::DeviceMismatch { what }) => assert_eq!(what, "send completion queue"),
        other => panic!("{other:?}"),
    }
    match pd.create_qp::<Uc>(&cq, &foreign, 1) {
        Err(Error::DeviceMismatch { what }) => assert_eq!(what, "receive completion queue"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_completion_queue_of_another_device_is_refused() {
    let null = null();
    let (own, other) = (open(0), open(1));
    refuses_a_queue_of(&own, &other);
    assert_eq!(null.count(Verb::CreateQp), 0);
}

#[test]
fn a_completion_queue_of_the_same_device_opened_twice_is_refused() {
    let null = null();
    let (own, other) = (open(0), open(0));
    assert_eq!(own.device().as_raw(), other.device().as_raw());
    refuses_a_queue_of(&own, &other);
    assert_eq!(null.count(Verb::CreateQp), 0);
}

#[test]
fn a_completion_channel_of_another_device_is_refused() {
    let null = null();
    let own = open(0);
    for other in [open(1), open(0)] {
        let channel = other.create_comp_channel().unwrap();
        match own.create_cq(1).set_comp_channel(&channel).build() {
            Err(Error::DeviceMismatch { what }) => assert_eq!(what, "completion channel"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(null.count(Verb::CreateCq), 0);
}

#[test]
fn clones_of_a_context_are_one() {
    let _null = null();
    let ctx = open(0);
    let clone = ctx.clone();
    let pd = ctx.alloc_pd().unwrap();
    let cq = clone.create_cq(1).build().unwrap();
    drop(pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().build().unwrap());
}

#[test]
fn a_device_outlives_its_list_while_it_is_open() {
    let _null = null();
    let ctx = {
        let list = ibverbs::devices().unwrap();
        assert_eq!(list.len(), 2);
        list.get(1).unwrap().open().unwrap()
    };
    assert_eq!(ctx.device().name(), "null1");
    assert_eq!(ctx.clone().device().index(), Some(1));
}
