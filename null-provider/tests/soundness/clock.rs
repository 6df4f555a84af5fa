//! The device's clock: what the device did not answer is not read.

use ibverbs::{ffi, Error};
use null_provider::Verb;

use crate::common::{null, open};

const RAW_CLOCK: u32 = ffi::IBV_VALUES_MASK_RAW_CLOCK;

#[test]
fn the_clock_is_what_the_device_answers() {
    let null = null();
    let ctx = open(0);
    for ticks in [0, 1, i64::MAX, -1] {
        null.configure(|config| {
            config.edit_rt_values = Some(Box::new(move |values| {
                assert_eq!(values.comp_mask, RAW_CLOCK);
                values.raw_clock.tv_nsec = ticks;
            }));
        });
        let values = ctx.query_rt_values_ex().unwrap();
        assert_eq!(values.raw_clock(), ticks as u64);
        assert_eq!(values.as_raw().raw_clock.tv_nsec, ticks);
        assert_eq!(format!("{values:?}"), format!("RtValues {{ raw_clock: {} }}", ticks as u64));
    }
}

#[test]
fn a_clock_that_was_not_answered_is_unsupported() {
    let null = null();
    let ctx = open(0);
    null.configure(|config| {
        config.edit_rt_values = Some(Box::new(|values| {
            values.comp_mask = !RAW_CLOCK;
            values.raw_clock.tv_nsec = 7;
        }));
    });
    let unsupported = |ctx: &ibverbs::Context| {
        let operation = "ibv_query_rt_values_ex";
        match ctx.query_rt_values_ex() {
            Err(Error::Unsupported { operation: found }) => assert_eq!(found, operation),
            other => panic!("{other:?}"),
        }
    };
    unsupported(&ctx);
    null.fail(Verb::QueryRtValues, libc::EOPNOTSUPP);
    unsupported(&ctx);
    null.succeed(Verb::QueryRtValues);
    // A library without the operation.
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| context.query_rt_values = None));
    });
    unsupported(&open(0));
}

#[test]
fn a_clock_that_cannot_be_read_is_an_error() {
    let null = null();
    let ctx = open(0);
    null.fail(Verb::QueryRtValues, libc::EIO);
    assert_eq!(ctx.query_rt_values_ex().unwrap_err().os_error(), Some(libc::EIO));
}
