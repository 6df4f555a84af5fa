//! Rule 10: an asynchronous event is copied, then acknowledged, then seen; and rule 7 for its type.

use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ibverbs::{ffi, AsyncEvent, Context, Error, EventSource, EventType, QueuePair, Rc};
use null_provider::{Element, Verb};

use crate::common::{connected, null, open, parts, Null, Parts};

/// A time that no test waits for.
const LONG: Duration = Duration::from_secs(600);

const OF_QUEUE_PAIRS: [EventType; 8] = [
    EventType::QP_FATAL,
    EventType::QP_REQ_ERR,
    EventType::QP_ACCESS_ERR,
    EventType::COMM_EST,
    EventType::SQ_DRAINED,
    EventType::PATH_MIG,
    EventType::PATH_MIG_ERR,
    EventType::QP_LAST_WQE_REACHED,
];

fn raise(null: &Null, ctx: &Context, event_type: EventType, element: Element) {
    null.raise(ctx.as_raw(), event_type.0, element);
}

fn raise_on_port(null: &Null, ctx: &Context, number: i32) {
    raise(null, ctx, EventType::PORT_ERR, Element::Number(number));
}

fn of_queue_pair(qp: &QueuePair<Rc>) -> Element {
    Element::Object(qp.as_raw().cast())
}

fn nowhere(addr: usize) -> Element {
    Element::Object(ptr::without_provenance_mut(addr))
}

fn next(ctx: &Context) -> AsyncEvent {
    ctx.poll_async_event().unwrap().expect("an event")
}

fn is_nonblocking(ctx: &Context) -> bool {
    // SAFETY: the context is open.
    let fd = unsafe { (*ctx.as_raw()).async_fd };
    // SAFETY: the descriptor is open, and this command takes no argument.
    unsafe { libc::fcntl(fd, libc::F_GETFL) & libc::O_NONBLOCK != 0 }
}

#[test]
fn an_event_is_acknowledged_before_it_is_seen() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let qp = connected(&pd, &cq);
    for event_type in OF_QUEUE_PAIRS {
        raise(&null, &ctx, event_type, of_queue_pair(&qp));
        null.take_calls();
        let event = next(&ctx);
        assert_eq!(null.verbs(), [Verb::GetAsyncEvent, Verb::AckAsyncEvent]);
        assert_eq!(event.event_type(), event_type);
    }
    assert_eq!(ctx.poll_async_event().unwrap(), None);
    assert_eq!(null.verbs(), [Verb::GetAsyncEvent]);
    // It would wait for an acknowledgement.
    qp.close().unwrap();
}

#[test]
fn the_numbers_are_read_before_the_acknowledgement() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let qp = connected(&pd, &cq);
    let qp_num = qp.qp_num();
    null.configure(|config| {
        config.edit_acknowledged = Some(Box::new(|event| {
            // SAFETY: the event is one of a queue pair.
            let qp = unsafe { event.element.qp };
            // From now on it may be freed.
            // SAFETY: the queue pair is alive, and nobody reads it meanwhile.
            unsafe { (*qp).qp_num = u32::MAX };
        }));
    });
    raise(&null, &ctx, EventType::QP_FATAL, of_queue_pair(&qp));
    assert_eq!(next(&ctx).source(), EventSource::Qp { qp_num, context: 0 });
}

#[test]
fn the_context_value_of_a_queue_pair_comes_with_its_events() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    for context in [0, 1, u64::MAX] {
        let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_context(context);
        let qp = builder.build().unwrap();
        let element = Element::Object(qp.as_raw().cast());
        raise(&null, &ctx, EventType::COMM_EST, element);
        let qp_num = qp.qp_num();
        assert_eq!(next(&ctx).source(), EventSource::Qp { qp_num, context });
    }
}

#[test]
fn completion_queues() {
    let null = null();
    null.configure(|config| {
        config.edit_cq = Some(Box::new(|cq| cq.cq_context = ptr::without_provenance_mut(5)))
    });
    let Parts { ctx, cq, .. } = parts();
    raise(&null, &ctx, EventType::CQ_ERR, Element::Object(cq.as_raw().cast()));
    let event = next(&ctx);
    assert_eq!(event.source(), EventSource::Cq { context: 5 });
    cq.close().unwrap();
}

#[test]
fn shared_receive_queues_and_work_queues() {
    let null = null();
    let ctx = open(0);
    let srq = ffi::ibv_srq { srq_context: ptr::without_provenance_mut(6), ..Default::default() };
    for event_type in [EventType::SRQ_ERR, EventType::SRQ_LIMIT_REACHED] {
        raise(&null, &ctx, event_type, Element::Object((&raw const srq).cast_mut().cast()));
        let event = next(&ctx);
        assert_eq!(event.event_type(), event_type);
        assert_eq!(event.source(), EventSource::Srq { context: 6 });
    }
    let wq = ffi::ibv_wq { wq_num: 7, ..Default::default() };
    raise(&null, &ctx, EventType::WQ_FATAL, Element::Object((&raw const wq).cast_mut().cast()));
    assert_eq!(next(&ctx).source(), EventSource::Wq { wq_num: 7 });
}

#[test]
fn ports_and_the_device() {
    let null = null();
    let ctx = open(0);
    for event_type in [
        EventType::PORT_ACTIVE,
        EventType::PORT_ERR,
        EventType::LID_CHANGE,
        EventType::PKEY_CHANGE,
        EventType::SM_CHANGE,
        EventType::CLIENT_REREGISTER,
        EventType::GID_CHANGE,
    ] {
        for (number, source) in [
            (1, EventSource::Port(1)),
            (255, EventSource::Port(255)),
            (256, EventSource::Unknown),
            (-1, EventSource::Unknown),
        ] {
            raise(&null, &ctx, event_type, Element::Number(number));
            let event = next(&ctx);
            assert_eq!((event.event_type(), event.source()), (event_type, source));
        }
    }
    for event_type in [EventType::DEVICE_FATAL, EventType::DEVICE_SPEED_CHANGE] {
        raise(&null, &ctx, event_type, Element::Number(1));
        assert_eq!(next(&ctx).source(), EventSource::Device);
    }
}

#[test]
fn an_unknown_event_is_not_looked_into_but_acknowledged() {
    let null = null();
    let ctx = open(0);
    for value in [21, 99, i32::MAX as u32, 1 << 31, u32::MAX] {
        for element in [Element::Number(-1), nowhere(1), nowhere(usize::MAX)] {
            raise(&null, &ctx, EventType(value), element);
            null.take_calls();
            let event = next(&ctx);
            assert_eq!(null.verbs(), [Verb::GetAsyncEvent, Verb::AckAsyncEvent]);
            assert_eq!(event.event_type(), EventType(value));
            assert_eq!(event.source(), EventSource::Unknown);
            assert!(event.to_string().contains(&format!("unknown ({value})")), "{event}");
        }
    }
}

#[test]
fn an_event_reads_as_a_sentence() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let srq = pd.create_srq(1).build().unwrap();
    let wq = ffi::ibv_wq { wq_num: 7, ..Default::default() };
    raise_on_port(&null, &ctx, 1);
    let event = next(&ctx);
    assert_eq!(event.to_string(), "port 1 went down (PORT_ERR)");
    assert_eq!(
        format!("{event:?}"),
        "AsyncEvent { event_type: EventType::PORT_ERR, source: Port(1) }"
    );
    let mut sentences = BTreeSet::new();
    for value in 0..=EventType::DEVICE_SPEED_CHANGE.0 {
        let object =
            ffi::ibv_qp { qp_context: ptr::without_provenance_mut(3), ..Default::default() };
        let element = match EventType(value) {
            event_type if OF_QUEUE_PAIRS.contains(&event_type) => {
                Element::Object((&raw const object).cast_mut().cast())
            }
            EventType::CQ_ERR => Element::Object(cq.as_raw().cast()),
            EventType::SRQ_ERR | EventType::SRQ_LIMIT_REACHED => {
                Element::Object(srq.as_raw().cast())
            }
            EventType::WQ_FATAL => Element::Object((&raw const wq).cast_mut().cast()),
            _ => Element::Number(2),
        };
        raise(&null, &ctx, EventType(value), element);
        let sentence = next(&ctx).to_string();
        let name = EventType(value).name().expect("a name");
        let what = sentence.strip_suffix(&format!(" ({name})")).expect("it ends with the name");
        assert!(!what.contains("does not know"), "{sentence}");
        assert!(sentences.insert(what.to_owned()), "{sentence}: another event says the same");
    }
    raise(&null, &ctx, EventType(1000), Element::Number(2));
    assert!(next(&ctx).to_string().contains("does not know"));
}

#[test]
fn events_come_in_order_to_the_context_that_they_are_of() {
    let null = null();
    let (first, second) = (open(0), open(0));
    let same = first.clone();
    for number in 1..=3 {
        raise_on_port(&null, &first, number);
    }
    assert_eq!(second.poll_async_event().unwrap(), None);
    for (ctx, number) in [(&first, 1), (&same, 2), (&first, 3)] {
        assert_eq!(next(ctx).source(), EventSource::Port(number));
    }
    assert_eq!(same.poll_async_event().unwrap(), None);
}

#[test]
fn a_refusal_is_an_error() {
    let null = null();
    let ctx = open(0);
    raise_on_port(&null, &ctx, 1);
    null.fail(Verb::GetAsyncEvent, libc::EIO);
    for result in [ctx.poll_async_event(), ctx.wait_async_event(None)] {
        match result {
            Err(Error::Verb { verb, source }) => {
                assert_eq!((verb, source.raw_os_error()), ("ibv_get_async_event", Some(libc::EIO)));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(null.count(Verb::AckAsyncEvent), 0);
    null.fail(Verb::GetAsyncEvent, libc::EOPNOTSUPP);
    assert!(matches!(ctx.poll_async_event(), Err(Error::Unsupported { .. })));
    null.succeed(Verb::GetAsyncEvent);
    assert_eq!(next(&ctx).source(), EventSource::Port(1));
}

#[test]
fn a_context_without_a_descriptor_has_no_events() {
    let null = null();
    null.configure(|config| {
        config.edit_context = Some(Box::new(|context| context.context.async_fd = -1));
    });
    let ctx = open(0);
    assert!(matches!(ctx.async_event_fd(), Err(Error::Unsupported { .. })));
    assert!(matches!(ctx.poll_async_event(), Err(Error::Unsupported { .. })));
    assert!(matches!(ctx.wait_async_event(None), Err(Error::Unsupported { .. })));
    assert_eq!(null.count(Verb::GetAsyncEvent), 0);
}

#[test]
fn the_descriptor_blocks_until_events_are_used() {
    let _null = null();
    for first_use in [
        |ctx: &Context| assert!(ctx.async_event_fd().is_ok()),
        |ctx: &Context| assert_eq!(ctx.poll_async_event().unwrap(), None),
    ] {
        let ctx = open(0);
        ctx.query_device().unwrap();
        assert!(!is_nonblocking(&ctx));
        first_use(&ctx);
        assert!(is_nonblocking(&ctx));
        // SAFETY: the context is open.
        let fd = unsafe { (*ctx.as_raw()).async_fd };
        assert_eq!(ctx.async_event_fd().unwrap().as_raw_fd(), fd);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn waiting_ends_with_the_time() {
    let _null = null();
    let ctx = open(0);
    for timeout in [Duration::ZERO, Duration::from_millis(2)] {
        assert_eq!(ctx.wait_async_event(Some(timeout)).unwrap(), None);
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn waiting_ends_with_an_event() {
    let null = null();
    let ctx = open(0);
    for timeout in [None, Some(LONG), Some(Duration::MAX)] {
        let waiting = ctx.clone();
        let thread = std::thread::spawn(move || waiting.wait_async_event(timeout).unwrap());
        std::thread::sleep(Duration::from_millis(5));
        raise_on_port(&null, &ctx, 1);
        assert_eq!(thread.join().unwrap().unwrap().source(), EventSource::Port(1));
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn an_event_that_is_gone_when_it_is_read_is_waited_for_no_more() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    for _ in 0..3 {
        let qp = connected(&pd, &cq);
        raise(&null, &ctx, EventType::QP_FATAL, of_queue_pair(&qp));
        qp.close().unwrap();
    }
    // The descriptor is readable; reading it in blocking mode would be a violation.
    assert_eq!(ctx.wait_async_event(Some(Duration::from_millis(2))).unwrap(), None);
    raise_on_port(&null, &ctx, 1);
    assert!(ctx.wait_async_event(None).unwrap().is_some());
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn a_device_that_was_removed_ends_the_waiting() {
    let null = null();
    let ctx = open(0);
    raise(&null, &ctx, EventType::DEVICE_FATAL, Element::Number(0));
    null.end_events(ctx.as_raw());
    // What came before is still there.
    assert_eq!(ctx.wait_async_event(None).unwrap().unwrap().event_type(), EventType::DEVICE_FATAL);
    for timeout in [None, Some(LONG)] {
        let (sender, receiver) = channel();
        let waiting = ctx.clone();
        let thread = std::thread::spawn(move || sender.send(waiting.wait_async_event(timeout)));
        let result = receiver.recv_timeout(Duration::from_secs(30)).expect("the waiting ends");
        assert_eq!(result.unwrap_err().os_error(), Some(libc::EIO));
        thread.join().unwrap().unwrap();
    }
    assert_eq!(ctx.poll_async_event().unwrap(), None);
}

#[test]
fn queues_and_contexts_with_unread_events_are_destroyed() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let qp = connected(&pd, &cq);
    raise(&null, &ctx, EventType::QP_FATAL, of_queue_pair(&qp));
    raise(&null, &ctx, EventType::CQ_ERR, Element::Object(cq.as_raw().cast()));
    raise_on_port(&null, &ctx, 1);
    qp.close().unwrap();
    cq.close().unwrap();
    pd.close().unwrap();
    ctx.close().unwrap();
}

#[test]
fn an_event_outlives_everything() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let qp = connected(&pd, &cq);
    let qp_num = qp.qp_num();
    raise(&null, &ctx, EventType::QP_FATAL, of_queue_pair(&qp));
    let event = next(&ctx);
    drop((ctx, pd, cq, qp));
    assert_eq!(event.source(), EventSource::Qp { qp_num, context: 0 });
}

#[test]
#[cfg_attr(miri, ignore = "Miri does not have ppoll")]
fn waiting_threads_get_each_event_once() {
    const EVENTS: i32 = 200;
    let null = null();
    let ctx = open(0);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (ctx, seen) = (ctx.clone(), seen.clone());
            std::thread::spawn(move || loop {
                match ctx.wait_async_event(None).unwrap().unwrap() {
                    last if last.event_type() == EventType::DEVICE_FATAL => break,
                    event => seen.lock().unwrap().push(event.source()),
                }
            })
        })
        .collect();
    for number in 0..EVENTS {
        raise_on_port(&null, &ctx, number);
    }
    for _ in &threads {
        raise(&null, &ctx, EventType::DEVICE_FATAL, Element::Number(0));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let mut seen: Vec<_> = seen.lock().unwrap().iter().map(|source| format!("{source}")).collect();
    let mut expected: Vec<_> = (0..EVENTS).map(|number| format!("port {number}")).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn one_thread_at_a_time_reads_the_events_of_a_context() {
    const EVENTS: usize = 200;
    let null = null();
    let ctx = open(0);
    for _ in 0..EVENTS {
        raise_on_port(&null, &ctx, 1);
    }
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let ctx = ctx.clone();
            std::thread::spawn(move || {
                std::iter::from_fn(|| ctx.poll_async_event().unwrap()).count()
            })
        })
        .collect();
    let seen: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    // The provider records a violation if two are at it.
    assert_eq!(seen, EVENTS);
}

#[test]
fn queue_pairs_are_destroyed_while_their_events_are_read() {
    let null = null();
    let Parts { ctx, pd, cq } = parts();
    let reader = ctx.clone();
    let thread = std::thread::spawn(move || {
        let mut seen = 0;
        loop {
            match reader.poll_async_event().unwrap() {
                None => std::thread::yield_now(),
                Some(event) if event.event_type() == EventType::DEVICE_FATAL => break seen,
                Some(event) => {
                    assert!(matches!(event.source(), EventSource::Qp { context: 9, .. }));
                    seen += 1;
                }
            }
        }
    });
    let rounds = if cfg!(miri) { 10 } else { 500 };
    for _ in 0..rounds {
        let builder = pd.create_qp::<Rc>(&cq, &cq, 1).unwrap().set_context(9);
        let qp = builder.build().unwrap();
        raise(&null, &ctx, EventType::QP_FATAL, Element::Object(qp.as_raw().cast()));
        drop(qp);
    }
    raise(&null, &ctx, EventType::DEVICE_FATAL, Element::Number(0));
    assert!(thread.join().unwrap() <= rounds);
}
