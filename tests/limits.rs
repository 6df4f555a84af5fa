//! Asking for too much or for what is not there, mixing what does not belong together, and reading
//! bytes that mean nothing: each gives the error that says so, and the next attempt works.

use ibverbs::{
    AccessFlags, Error, LocalMemorySlice, QueuePairBuilder, QueuePairEndpoint, Rc,
    RemoteMemorySlice, SendOps, Uc,
};
use ibverbs_tests::{other_context, pair_with, prepare, test_context, Bed, PORT};

/// Builds a queue pair that must be refused.
#[track_caller]
fn refused(
    bed: &Bed,
    setup: impl for<'b> FnOnce(QueuePairBuilder<'b, Rc>) -> QueuePairBuilder<'b, Rc>,
) -> Error {
    let cq = bed.ctx().create_cq(1).build().unwrap();
    let builder = bed.pd().create_qp::<Rc>(&cq, &cq, PORT).unwrap();
    let error = setup(builder.set_gid_index(bed.gid_index())).build().map(drop).unwrap_err();
    // What was tried meanwhile is gone: the queue is not in use.
    cq.close().unwrap();
    error
}

/// Checks that this is a capacity error with these numbers, and that the message shows them.
#[track_caller]
fn assert_capacity(error: &Error, asked: u64, offered: u64) {
    let Error::Capacity { requested, available, .. } = error else { panic!("{error}") };
    assert_eq!((*requested, *available), (asked, offered), "{error}");
    let text = error.to_string();
    assert!(text.contains(&asked.to_string()) && text.contains(&offered.to_string()), "{text}");
}

#[test]
fn queues_that_are_too_deep_are_told_with_both_numbers() {
    let bed = Bed::new();
    let most = bed.ctx().query_device().unwrap().max_qp_wr();
    for asked in [most + 1, u32::MAX] {
        let error = refused(&bed, |builder| builder.set_max_send_wr(asked));
        assert_capacity(&error, asked.into(), most.into());
        assert!(error.to_string().contains("send requests"), "{error}");
        let error = refused(&bed, |builder| builder.set_max_recv_wr(asked));
        assert_capacity(&error, asked.into(), most.into());
        assert!(error.to_string().contains("receive requests"), "{error}");
    }
}

#[test]
fn too_many_scatter_entries_are_told_with_both_numbers() {
    let bed = Bed::new();
    let most = bed.ctx().query_device().unwrap().max_sge();
    for asked in [most + 1, u32::MAX] {
        let error = refused(&bed, |builder| builder.set_max_send_sge(asked));
        assert_capacity(&error, asked.into(), most.into());
        let error = refused(&bed, |builder| builder.set_max_recv_sge(asked));
        assert_capacity(&error, asked.into(), most.into());
    }
}

#[test]
fn too_much_inline_data_is_told_with_what_would_have_been_granted() {
    let bed = Bed::new();
    for asked in [1 << 20, u32::MAX] {
        let error = refused(&bed, |builder| builder.set_max_inline_data(asked));
        let Error::Capacity { requested, available, what, .. } = error else { panic!("{error}") };
        assert_eq!((requested, what), (asked.into(), "bytes of inline data"));
        let most = u32::try_from(available).unwrap();
        assert!(most < asked);
        // The offer is true, and no more can be had.
        let prepared = prepare::<Rc>(&bed, |builder| builder.set_max_inline_data(most));
        assert!(prepared.qp.capacity().max_inline_data >= most);
        refused(&bed, |builder| builder.set_max_inline_data(most + 1));
    }
}

#[test]
fn too_many_outstanding_reads_are_told_with_both_numbers() {
    let bed = Bed::new();
    let device = bed.ctx().query_device().unwrap();
    let (init, dest) = (device.max_qp_init_rd_atom(), device.max_qp_rd_atom());
    if let Ok(asked) = u8::try_from(init + 1) {
        let error = refused(&bed, |builder| builder.set_max_rd_atomic(asked));
        assert_capacity(&error, asked.into(), init.into());
    }
    if let Ok(asked) = u8::try_from(dest + 1) {
        let error = refused(&bed, |builder| builder.set_max_dest_rd_atomic(asked));
        assert_capacity(&error, asked.into(), dest.into());
    }
    // As many as there are do work.
    let (init, dest) = (init.min(255) as u8, dest.min(255) as u8);
    let most = init.min(dest);
    pair_with::<Rc>(&bed, |b| b.set_max_rd_atomic(most).set_max_dest_rd_atomic(dest));
}

#[test]
fn what_is_granted_is_at_least_what_was_asked_for() {
    let bed = Bed::new();
    for n in [1, 2, 3, 17, 100] {
        let prepared = prepare::<Rc>(&bed, |builder| {
            builder
                .set_max_send_wr(n)
                .set_max_recv_wr(n + 1)
                .set_max_send_sge(n.min(5))
                .set_max_recv_sge(n.min(6))
                .set_max_inline_data(n)
        });
        let granted = prepared.qp.capacity();
        assert!(granted.max_send_wr >= n && granted.max_recv_wr > n, "{granted:?}");
        assert!(granted.max_send_sge >= n.min(5), "{granted:?}");
        assert!(granted.max_recv_sge >= n.min(6), "{granted:?}");
        assert!(granted.max_inline_data >= n, "{granted:?}");
    }
}

#[test]
fn a_completion_queue_that_is_too_deep_is_told_with_both_numbers() {
    let ctx = test_context();
    let most = ctx.query_device().unwrap().max_cqe();
    for asked in [most + 1, i32::MAX as u32, u32::MAX] {
        let error = ctx.create_cq(asked).build().map(drop).unwrap_err();
        assert_capacity(&error, asked.into(), most.into());
    }
    let error = ctx.create_cq(0).build().map(drop).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { value: 0, .. }), "{error}");
}

#[test]
fn a_completion_vector_that_is_not_there_is_refused() {
    let ctx = test_context();
    for vector in [ctx.num_comp_vectors(), u32::MAX] {
        let error = ctx.create_cq(1).set_comp_vector(vector).build().map(drop).unwrap_err();
        let value = u64::from(vector);
        assert!(matches!(error, Error::InvalidArgument { value: v, .. } if v == value), "{error}");
        assert!(error.to_string().contains("completion vector"), "{error}");
    }
}

#[test]
fn a_port_that_is_not_there_is_refused_with_the_number_of_ports() {
    let bed = Bed::new();
    let ctx = bed.ctx();
    let count = ctx.query_device().unwrap().num_ports();
    let cq = ctx.create_cq(1).build().unwrap();
    for wrong in [0, count + 1, 255] {
        let errors = [
            ctx.query_port(wrong).map(drop).unwrap_err(),
            ctx.query_gid(wrong, 0).map(drop).unwrap_err(),
            ctx.query_pkey(wrong, 0).map(drop).unwrap_err(),
            ctx.routable_gid(wrong).map(drop).unwrap_err(),
            bed.pd().create_qp::<Rc>(&cq, &cq, wrong).map(drop).unwrap_err(),
        ];
        for error in errors {
            let Error::InvalidPort { device, port, ports } = &error else { panic!("{error}") };
            assert_eq!((device.as_str(), *port, *ports), (ctx.device().name(), wrong, count));
        }
    }
}

#[test]
fn a_gid_index_that_is_not_there_is_refused_with_the_length_of_the_table() {
    let bed = Bed::new();
    let ctx = bed.ctx();
    let length = ctx.query_port(PORT).unwrap().gid_table_len();
    let used: Vec<u32> = ctx.gid_table().unwrap().iter().map(|entry| entry.index()).collect();
    let is = |error: &Error, wrong: u32| {
        matches!(error, Error::InvalidIndex { table: "GID", port: PORT, index, entries }
            if *index == wrong && *entries == length)
    };
    for beyond in [length, length + 1, u32::MAX] {
        let error = ctx.query_gid(PORT, beyond).map(drop).unwrap_err();
        assert!(is(&error, beyond), "{error}");
    }
    // An entry that is empty cannot be used either.
    let empty = (0..length).find(|index| !used.contains(index));
    for wrong in empty.into_iter().chain([length]).filter_map(|index| u8::try_from(index).ok()) {
        let error = refused(&bed, |builder| builder.set_gid_index(wrong));
        assert!(is(&error, wrong.into()), "{error}");
    }
}

#[track_caller]
fn assert_invalid_pkey(error: &Error, wrong: u16, length: u16) {
    let ok = matches!(error, Error::InvalidIndex { table: "P_Key", port: PORT, index, entries }
        if *index == u32::from(wrong) && *entries == u32::from(length));
    assert!(ok, "{error}");
}

#[test]
fn a_partition_key_that_is_not_there_is_refused() {
    let bed = Bed::new();
    let length = bed.ctx().query_port(PORT).unwrap().pkey_table_len();
    for wrong in [length, u16::MAX] {
        let error = bed.ctx().query_pkey(PORT, wrong).map(drop).unwrap_err();
        assert_invalid_pkey(&error, wrong, length);
        let error = refused(&bed, |builder| builder.set_pkey_index(wrong));
        assert_invalid_pkey(&error, wrong, length);
    }
}

#[test]
fn values_that_are_out_of_range_are_refused_before_the_device_is_asked() {
    let bed = Bed::new();
    let check = |error: Error, wrong: u64| {
        assert!(matches!(error, Error::InvalidArgument { value, .. } if value == wrong), "{error}");
    };
    check(refused(&bed, |builder| builder.set_retry_count(8)), 8);
    check(refused(&bed, |builder| builder.set_rnr_retry(8)), 8);
    check(refused(&bed, |builder| builder.set_service_level(16)), 16);
    check(refused(&bed, |builder| builder.set_first_psn(1 << 24)), 1 << 24);
    check(refused(&bed, |builder| builder.set_flow_label(1 << 20)), 1 << 20);

    let cq = bed.ctx().create_cq(1).build().unwrap();
    let builder = bed.pd().create_qp::<Uc>(&cq, &cq, PORT).unwrap();
    let read = SendOps::SEND | SendOps::RDMA_READ;
    let error = builder.set_send_ops(read).build().map(drop).unwrap_err();
    let expected = matches!(error, Error::InvalidSendOps { requested, .. } if requested == read);
    assert!(expected, "{error}");
    let error = refused(&bed, |builder| builder.set_send_ops(SendOps::empty()));
    let expected = matches!(error, Error::InvalidSendOps { requested, .. } if requested.is_empty());
    assert!(expected, "{error}");
}

#[test]
fn parts_of_different_contexts_are_not_mixed() {
    let bed = Bed::new();
    let other = other_context(bed.ctx());
    let own = bed.ctx().create_cq(1).build().unwrap();
    let foreign = other.create_cq(1).build().unwrap();
    let mixed = [(&foreign, &own), (&own, &foreign), (&foreign, &foreign)];
    for ((send, recv), part) in mixed.into_iter().zip(["send", "receive", "send"]) {
        let error = bed.pd().create_qp::<Rc>(send, recv, PORT).map(drop).unwrap_err();
        let ok = matches!(error, Error::DeviceMismatch { what } if what.starts_with(part));
        assert!(ok, "{error}");
    }
    bed.pd().create_qp::<Rc>(&own, &own, PORT).map(drop).unwrap();
    // Clones of one context are the same device.
    let clone = bed.ctx().clone().create_cq(1).build().unwrap();
    bed.pd().create_qp::<Rc>(&own, &clone, PORT).map(drop).unwrap();
    foreign.close().unwrap();
}

#[test]
fn bytes_that_are_no_endpoint_are_refused() {
    let bed = Bed::new();
    let endpoint = prepare::<Rc>(&bed, |builder| builder).qp.endpoint().unwrap();
    let good = endpoint.to_bytes();
    assert_eq!(QueuePairEndpoint::from_bytes(&good).unwrap(), endpoint);
    let refused = |bytes: &[u8]| {
        let error = QueuePairEndpoint::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, Error::InvalidBytes { .. }), "{error}");
    };
    (0..good.len()).for_each(|len| refused(&good[..len]));
    refused(&[good.as_slice(), &[0]].concat());
    refused(&[0; QueuePairEndpoint::BYTES]);
    refused(&[0xff; QueuePairEndpoint::BYTES]);
}

#[test]
fn bytes_that_are_no_remote_memory_are_refused() {
    let bed = Bed::new();
    let remote = bed.mem(64).remote().slice(3..40);
    let good = remote.to_bytes();
    assert_eq!(RemoteMemorySlice::from_bytes(&good).unwrap(), remote);
    let refused = |bytes: &[u8]| {
        let error = RemoteMemorySlice::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, Error::InvalidBytes { .. }), "{error}");
    };
    (0..good.len()).for_each(|len| refused(&good[..len]));
    refused(&[good.as_slice(), &[0]].concat());
    refused(&[0; RemoteMemorySlice::BYTES]);
    refused(&[0xff; RemoteMemorySlice::BYTES]);
}

#[test]
fn a_device_that_is_opened_twice_gives_two_contexts() {
    let first = test_context();
    let second = test_context();
    let region = first.alloc_pd().unwrap().allocate(64, AccessFlags::empty()).unwrap();
    let _: LocalMemorySlice = region.slice(..);
    second.close().unwrap();
    let failed = first.close().unwrap_err();
    assert!(matches!(failed.error, Error::InUse { resource: "device context" }), "{failed}");
    drop(region);
    failed.resource.close().unwrap();
}
