//! What a failure is said to come from: not from the program, if the device fails for a reason of its own.

use ibverbs::efa;
use ibverbs::{Error, Result, WcFields};
use null_provider::Verb;

use crate::common::{null, open};

#[track_caller]
fn expect_verb<T>(result: Result<T>, expected: &str, code: i32) {
    match result.map(drop) {
        Err(Error::Verb { verb, source }) => {
            assert_eq!((verb, source.raw_os_error()), (expected, Some(code)));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_port_that_there_is_and_that_does_not_answer_is_not_an_invalid_port() {
    let null = null();
    let ctx = open(0);
    let ports = ctx.query_device().unwrap().num_ports();
    null.fail(Verb::QueryPort, libc::EIO);
    expect_verb(ctx.query_port(1), "ibv_query_port", libc::EIO);
    expect_verb(ctx.query_port(ports), "ibv_query_port", libc::EIO);
    for port in [0, ports + 1, u8::MAX] {
        let error = ctx.query_port(port).unwrap_err();
        assert!(matches!(error, Error::InvalidPort { .. }), "{error:?}");
    }
}

#[test]
fn a_completion_queue_that_is_not_made_says_why() {
    let null = null();
    let ctx = open(0);
    let most = ctx.query_device().unwrap().max_cqe();
    let fields = WcFields::COMPLETION_TIMESTAMP;
    null.fail(Verb::CreateCq, libc::ENOMEM);
    // As many entries as there are, and fields, are not the reason.
    expect_verb(ctx.create_cq(most).build(), "ibv_create_cq_ex", libc::ENOMEM);
    expect_verb(ctx.create_cq(1).set_wc_fields(fields).build(), "ibv_create_cq_ex", libc::ENOMEM);
    let error = ctx.create_cq(most + 1).build().unwrap_err();
    assert!(matches!(error, Error::Capacity { .. }), "{error:?}");
    null.fail(Verb::CreateCq, libc::EOPNOTSUPP);
    for (fields, expected) in
        [(WcFields::empty(), "ibv_create_cq_ex"), (fields, "optional fields (see `set_wc_fields`)")]
    {
        match ctx.create_cq(1).set_wc_fields(fields).build() {
            Err(Error::Unsupported { operation }) => {
                assert!(operation.contains(expected), "{operation}");
                assert_eq!(operation.contains("set_wc_fields"), !fields.is_empty(), "{operation}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_completion_queue_with_fields_of_efa_that_is_not_made_says_why() {
    let null = null();
    null.configure(|config| config.is_efa = true);
    let ctx = open(0);
    let create = |code| {
        null.fail(Verb::CreateCq, code);
        ctx.create_cq(1).set_efa_wc_fields(efa::WcFields::SENDER_GID).build()
    };
    expect_verb(create(libc::ENOMEM), "ibv_create_cq_ex", libc::ENOMEM);
    match create(libc::EOPNOTSUPP) {
        Err(Error::Unsupported { operation }) => {
            assert!(operation.contains("set_efa_wc_fields"), "{operation}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_vector_of_a_completion_queue_is_the_one_that_was_asked_for() {
    let null = null();
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| context.context.num_comp_vectors = 4));
    });
    let ctx = open(0);
    assert_eq!(ctx.num_comp_vectors(), 4);
    ctx.create_cq(1).set_comp_vector(0).build().unwrap();
    null.take_calls();
    // The null provider has one; here it says that it has more.
    expect_verb(ctx.create_cq(1).set_comp_vector(3).build(), "ibv_create_cq_ex", libc::EINVAL);
    assert_eq!(null.count(Verb::CreateCq), 1);
    let result = ctx.create_cq(1).set_comp_vector(4).build();
    assert!(matches!(result, Err(Error::InvalidArgument { value: 4, .. })), "{result:?}");
    assert_eq!(null.count(Verb::CreateCq), 1);
}
