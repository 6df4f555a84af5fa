//! Which transitions of a queue pair there are, and which attributes `ibv_modify_qp` takes with them.
//!
//! The facts are those of the InfiniBand Architecture Specification, volume 1, section 11.2.5.2, as Linux applies them; those
//! of SRD stand in its driver (drivers/infiniband/hw/efa/efa_verbs.c): they are those of UD, with one attribute more.

use crate::bindings::*;

/// What a transition takes, beside `IBV_QP_STATE` itself: masks of `enum ibv_qp_attr_mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What must be given.
    pub required: ibv_qp_attr_mask,
    /// What may be given.
    pub optional: ibv_qp_attr_mask,
}

/// A transition, with what it takes on each service.
#[derive(Clone, Copy, Debug)]
pub struct Transition {
    /// The state before it.
    pub from: ibv_qp_state,
    /// The state after it.
    pub to: ibv_qp_state,
    rc: Rule,
    uc: Rule,
    ud: Rule,
}

macro_rules! mask {
    ($($flag:ident)*) => { 0 $(| mask!(@ $flag))* };
    (@ CUR_STATE) => { IBV_QP_CUR_STATE };
    (@ EN_SQD_ASYNC_NOTIFY) => { IBV_QP_EN_SQD_ASYNC_NOTIFY };
    (@ ACCESS_FLAGS) => { IBV_QP_ACCESS_FLAGS };
    (@ PKEY_INDEX) => { IBV_QP_PKEY_INDEX };
    (@ PORT) => { IBV_QP_PORT };
    (@ QKEY) => { IBV_QP_QKEY };
    (@ AV) => { IBV_QP_AV };
    (@ PATH_MTU) => { IBV_QP_PATH_MTU };
    (@ TIMEOUT) => { IBV_QP_TIMEOUT };
    (@ RETRY_CNT) => { IBV_QP_RETRY_CNT };
    (@ RNR_RETRY) => { IBV_QP_RNR_RETRY };
    (@ RQ_PSN) => { IBV_QP_RQ_PSN };
    (@ MAX_RD_ATOMIC) => { IBV_QP_MAX_QP_RD_ATOMIC };
    (@ ALT_PATH) => { IBV_QP_ALT_PATH };
    (@ MIN_RNR_TIMER) => { IBV_QP_MIN_RNR_TIMER };
    (@ SQ_PSN) => { IBV_QP_SQ_PSN };
    (@ MAX_DEST_RD_ATOMIC) => { IBV_QP_MAX_DEST_RD_ATOMIC };
    (@ PATH_MIG_STATE) => { IBV_QP_PATH_MIG_STATE };
    (@ DEST_QPN) => { IBV_QP_DEST_QPN };
}

macro_rules! table {
    ($( $from:ident $to:ident {
        rc: $($rc:ident)* / $($rc_opt:ident)*;
        uc: $($uc:ident)* / $($uc_opt:ident)*;
        ud: $($ud:ident)* / $($ud_opt:ident)*;
    } )*) => {
        &[$( Transition {
            from: $from,
            to: $to,
            rc: Rule { required: mask!($($rc)*), optional: mask!($($rc_opt)*) },
            uc: Rule { required: mask!($($uc)*), optional: mask!($($uc_opt)*) },
            ud: Rule { required: mask!($($ud)*), optional: mask!($($ud_opt)*) },
        } ),*]
    };
}

/// Every transition but those to `RESET`, and to `ERR` from any state but `RESET`, which take no attribute.
pub const TABLE: &[Transition] = table! {
    IBV_QPS_RESET IBV_QPS_INIT {
        rc: PKEY_INDEX PORT ACCESS_FLAGS / ;
        uc: PKEY_INDEX PORT ACCESS_FLAGS / ;
        ud: PKEY_INDEX PORT QKEY / ;
    }
    IBV_QPS_INIT IBV_QPS_INIT {
        rc: / PKEY_INDEX PORT ACCESS_FLAGS;
        uc: / PKEY_INDEX PORT ACCESS_FLAGS;
        ud: / PKEY_INDEX PORT QKEY;
    }
    IBV_QPS_INIT IBV_QPS_RTR {
        rc: AV PATH_MTU DEST_QPN RQ_PSN MAX_DEST_RD_ATOMIC MIN_RNR_TIMER / ALT_PATH ACCESS_FLAGS PKEY_INDEX;
        uc: AV PATH_MTU DEST_QPN RQ_PSN / ALT_PATH ACCESS_FLAGS PKEY_INDEX;
        ud: / PKEY_INDEX QKEY;
    }
    IBV_QPS_RTR IBV_QPS_RTS {
        rc: TIMEOUT RETRY_CNT RNR_RETRY SQ_PSN MAX_RD_ATOMIC
            / CUR_STATE ALT_PATH ACCESS_FLAGS MIN_RNR_TIMER PATH_MIG_STATE;
        uc: SQ_PSN / CUR_STATE ALT_PATH ACCESS_FLAGS PATH_MIG_STATE;
        ud: SQ_PSN / CUR_STATE QKEY;
    }
    IBV_QPS_RTS IBV_QPS_RTS {
        rc: / CUR_STATE ACCESS_FLAGS ALT_PATH PATH_MIG_STATE MIN_RNR_TIMER;
        uc: / CUR_STATE ACCESS_FLAGS ALT_PATH PATH_MIG_STATE;
        ud: / CUR_STATE QKEY;
    }
    IBV_QPS_RTS IBV_QPS_SQD {
        rc: / EN_SQD_ASYNC_NOTIFY;
        uc: / EN_SQD_ASYNC_NOTIFY;
        ud: / EN_SQD_ASYNC_NOTIFY;
    }
    IBV_QPS_SQD IBV_QPS_RTS {
        rc: / CUR_STATE ALT_PATH ACCESS_FLAGS MIN_RNR_TIMER PATH_MIG_STATE;
        uc: / CUR_STATE ALT_PATH ACCESS_FLAGS PATH_MIG_STATE;
        ud: / CUR_STATE QKEY;
    }
    IBV_QPS_SQD IBV_QPS_SQD {
        rc: / PORT AV TIMEOUT RETRY_CNT RNR_RETRY MAX_RD_ATOMIC MAX_DEST_RD_ATOMIC ALT_PATH
            ACCESS_FLAGS PKEY_INDEX MIN_RNR_TIMER PATH_MIG_STATE;
        uc: / AV ALT_PATH ACCESS_FLAGS PKEY_INDEX PATH_MIG_STATE;
        ud: / PKEY_INDEX QKEY;
    }
    IBV_QPS_SQE IBV_QPS_RTS {
        rc: / ;
        uc: / CUR_STATE ACCESS_FLAGS;
        ud: / CUR_STATE QKEY;
    }
};

/// What the transition takes, or `None` if there is no such transition. `IBV_QPT_DRIVER` is SRD.
pub fn rule(qp_type: ibv_qp_type, from: ibv_qp_state, to: ibv_qp_state) -> Option<Rule> {
    if to == IBV_QPS_RESET || (to == IBV_QPS_ERR && from != IBV_QPS_RESET) {
        return Some(Rule { required: 0, optional: 0 });
    }
    // A reliable queue pair has no send queue error: it fails as a whole.
    if qp_type == IBV_QPT_RC && from == IBV_QPS_SQE {
        return None;
    }
    let transition = TABLE.iter().find(|row| row.from == from && row.to == to)?;
    Some(match qp_type {
        IBV_QPT_RC => transition.rc,
        IBV_QPT_UC => transition.uc,
        IBV_QPT_DRIVER if (from, to) == (IBV_QPS_RTR, IBV_QPS_RTS) => {
            Rule { optional: transition.ud.optional | IBV_QP_RNR_RETRY, ..transition.ud }
        }
        _ => transition.ud,
    })
}
