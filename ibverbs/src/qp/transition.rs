//! Which transitions there are, and which attributes they take: one table, for the diagnosis of a
//! refused `modify` and for the page `transitions.md`.
//!
//! The facts are those of the InfiniBand Architecture Specification, volume 1, section 11.2.5.2, as
//! Linux applies them; those of SRD stand in its driver (drivers/infiniband/hw/efa/efa_verbs.c): they are those of UD,
//! with one attribute more.

use std::{fmt, io};

use super::attr::QueuePairAttrMask as Mask;
use super::state::QpState;
use crate::ffi;

/// What a transition takes, beside the states themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) required: Mask,
    pub(super) optional: Mask,
}

struct Row {
    from: QpState,
    to: QpState,
    rc: Rule,
    uc: Rule,
    ud: Rule,
}

macro_rules! mask {
    ($($flag:ident)*) => { Mask::empty()$(.union(Mask::$flag))* };
}

macro_rules! table {
    ($( $from:ident $to:ident {
        rc: $($rc:ident)* / $($rc_opt:ident)*;
        uc: $($uc:ident)* / $($uc_opt:ident)*;
        ud: $($ud:ident)* / $($ud_opt:ident)*;
    } )*) => {
        &[$( Row {
            from: QpState::$from,
            to: QpState::$to,
            rc: Rule { required: mask!($($rc)*), optional: mask!($($rc_opt)*) },
            uc: Rule { required: mask!($($uc)*), optional: mask!($($uc_opt)*) },
            ud: Rule { required: mask!($($ud)*), optional: mask!($($ud_opt)*) },
        } ),*]
    };
}

/// Every transition but those to RESET, and to ERR from any state but RESET, which take no attribute.
const TABLE: &[Row] = table! {
    RESET INIT {
        rc: PKEY_INDEX PORT ACCESS_FLAGS / ;
        uc: PKEY_INDEX PORT ACCESS_FLAGS / ;
        ud: PKEY_INDEX PORT QKEY / ;
    }
    INIT INIT {
        rc: / PKEY_INDEX PORT ACCESS_FLAGS;
        uc: / PKEY_INDEX PORT ACCESS_FLAGS;
        ud: / PKEY_INDEX PORT QKEY;
    }
    INIT RTR {
        rc: AV PATH_MTU DEST_QPN RQ_PSN MAX_DEST_RD_ATOMIC MIN_RNR_TIMER / ALT_PATH ACCESS_FLAGS PKEY_INDEX;
        uc: AV PATH_MTU DEST_QPN RQ_PSN / ALT_PATH ACCESS_FLAGS PKEY_INDEX;
        ud: / PKEY_INDEX QKEY;
    }
    RTR RTS {
        rc: TIMEOUT RETRY_CNT RNR_RETRY SQ_PSN MAX_RD_ATOMIC
            / CUR_STATE ALT_PATH ACCESS_FLAGS MIN_RNR_TIMER PATH_MIG_STATE;
        uc: SQ_PSN / CUR_STATE ALT_PATH ACCESS_FLAGS PATH_MIG_STATE;
        ud: SQ_PSN / CUR_STATE QKEY;
    }
    RTS RTS {
        rc: / CUR_STATE ACCESS_FLAGS ALT_PATH PATH_MIG_STATE MIN_RNR_TIMER;
        uc: / CUR_STATE ACCESS_FLAGS ALT_PATH PATH_MIG_STATE;
        ud: / CUR_STATE QKEY;
    }
    RTS SQD {
        rc: / EN_SQD_ASYNC_NOTIFY;
        uc: / EN_SQD_ASYNC_NOTIFY;
        ud: / EN_SQD_ASYNC_NOTIFY;
    }
    SQD RTS {
        rc: / CUR_STATE ALT_PATH ACCESS_FLAGS MIN_RNR_TIMER PATH_MIG_STATE;
        uc: / CUR_STATE ALT_PATH ACCESS_FLAGS PATH_MIG_STATE;
        ud: / CUR_STATE QKEY;
    }
    SQD SQD {
        rc: / PORT AV TIMEOUT RETRY_CNT RNR_RETRY MAX_RD_ATOMIC MAX_DEST_RD_ATOMIC ALT_PATH
            ACCESS_FLAGS PKEY_INDEX MIN_RNR_TIMER PATH_MIG_STATE;
        uc: / AV ALT_PATH ACCESS_FLAGS PKEY_INDEX PATH_MIG_STATE;
        ud: / PKEY_INDEX QKEY;
    }
    SQE RTS {
        rc: / ;
        uc: / CUR_STATE ACCESS_FLAGS;
        ud: / CUR_STATE QKEY;
    }
};

/// What the transition takes, or `None` if there is no such transition.
pub(super) fn rule(qp_type: ffi::ibv_qp_type, from: QpState, to: QpState) -> Option<Rule> {
    if to == QpState::RESET || (to == QpState::ERR && from != QpState::RESET) {
        return Some(Rule { required: Mask::empty(), optional: Mask::empty() });
    }
    let reliable = qp_type == ffi::IBV_QPT_RC;
    // A reliable queue pair has no send queue error: it fails as a whole.
    if reliable && from == QpState::SQE {
        return None;
    }
    let row = TABLE.iter().find(|row| row.from == from && row.to == to)?;
    Some(match qp_type {
        ffi::IBV_QPT_RC => row.rc,
        ffi::IBV_QPT_UC => row.uc,
        ffi::IBV_QPT_DRIVER if (from, to) == (QpState::RTR, QpState::RTS) => {
            Rule { optional: row.ud.optional | Mask::RNR_RETRY, ..row.ud }
        }
        _ => row.ud,
    })
}

/// Why a transition was refused.
///
#[doc = include_str!("transitions.md")]
#[derive(Debug)]
pub struct TransitionFailure {
    from: QpState,
    to: QpState,
    exists: bool,
    not_allowed: Mask,
    missing: Mask,
    source: io::Error,
}

impl TransitionFailure {
    pub(super) fn new(
        qp_type: ffi::ibv_qp_type,
        from: QpState,
        to: QpState,
        given: Mask,
        source: io::Error,
    ) -> TransitionFailure {
        let rule = rule(qp_type, from, to);
        let (not_allowed, missing) = match rule {
            None => (Mask::empty(), Mask::empty()),
            Some(rule) => {
                let allowed = rule.required | rule.optional | Mask::STATE;
                (given - allowed, rule.required - given)
            }
        };
        TransitionFailure { from, to, exists: rule.is_some(), not_allowed, missing, source }
    }

    /// The state that the queue pair is in.
    pub fn from(&self) -> QpState {
        self.from
    }

    /// The state that was asked for.
    pub fn to(&self) -> QpState {
        self.to
    }

    /// Whether the specification knows this transition.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// The attributes that were given, but that the transition does not take.
    pub fn not_allowed(&self) -> Mask {
        self.not_allowed
    }

    /// The attributes that the transition requires, but that were not given.
    pub fn missing(&self) -> Mask {
        self.missing
    }

    /// Whether the transition and its attributes are as they should be, so that a value must be wrong.
    pub fn is_well_formed(&self) -> bool {
        self.exists && self.not_allowed.is_empty() && self.missing.is_empty()
    }
}

fn names(mask: Mask) -> String {
    mask.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for TransitionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ibv_modify_qp: the transition {} -> {} was refused: ", self.from, self.to)?;
        if !self.exists {
            return f.write_str("there is no such transition");
        }
        if self.is_well_formed() && self.from == QpState::SQD {
            return f.write_str(
                "the send queue may still be draining (see `sq_draining`), or the device does not accept a value",
            );
        }
        if self.is_well_formed() {
            return f.write_str(
                "its attributes are the right ones, so that the device does not accept one of their values",
            );
        }
        if !self.missing.is_empty() {
            write!(f, "it requires {}", names(self.missing))?;
        }
        if !self.not_allowed.is_empty() {
            let and = if self.missing.is_empty() { "" } else { ", and " };
            write!(f, "{and}it does not take {}", names(self.not_allowed))?;
        }
        Ok(())
    }
}

impl std::error::Error for TransitionFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    fn page() -> String {
        let mut page = String::from(
            "# Queue pair transitions\n\n\
             Which attributes `ibv_modify_qp` takes on the way from one state to another: **required** ones,\n\
             and optional ones. Any state goes to RESET, and any but RESET to ERR, without attributes.\n\n\
             This page is made from the table in `ibverbs/src/qp/transition.rs`, which also explains a\n\
             refused transition at run time. `BLESS=1 cargo test -p ibverbs transition` writes it anew.\n",
        );
        let types = [
            ("RC", ffi::IBV_QPT_RC),
            ("UC", ffi::IBV_QPT_UC),
            ("UD", ffi::IBV_QPT_UD),
            ("SRD (EFA)", ffi::IBV_QPT_DRIVER),
        ];
        for (title, qp_type) in types {
            write!(
                page,
                "\n## {title}\n\n| from | to | required | optional |\n|---|---|---|---|\n"
            )
            .unwrap();
            for row in TABLE {
                if let Some(rule) = rule(qp_type, row.from, row.to) {
                    let (required, optional) = (names(rule.required), names(rule.optional));
                    writeln!(page, "| {} | {} | {required} | {optional} |", row.from, row.to)
                        .unwrap();
                }
            }
        }
        page
    }

    #[test]
    fn the_page_in_the_docs_is_this_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/qp/transitions.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), page(), "run with BLESS=1 to write it");
    }

    fn refused(from: QpState, to: QpState, given: Mask) -> TransitionFailure {
        let source = io::Error::from_raw_os_error(libc::EINVAL);
        TransitionFailure::new(ffi::IBV_QPT_RC, from, to, given, source)
    }

    #[test]
    fn an_impossible_transition_is_named() {
        let failure = refused(QpState::RESET, QpState::RTS, Mask::STATE);
        assert!(!failure.exists());
        assert_eq!(
            failure.to_string(),
            "ibv_modify_qp: the transition RESET -> RTS was refused: there is no such transition"
        );
    }

    #[test]
    fn missing_and_superfluous_attributes_are_named() {
        let failure =
            refused(QpState::RESET, QpState::INIT, Mask::STATE | Mask::PKEY_INDEX | Mask::QKEY);
        assert_eq!(failure.missing(), Mask::PORT | Mask::ACCESS_FLAGS);
        assert_eq!(failure.not_allowed(), Mask::QKEY);
        assert_eq!(
            failure.to_string(),
            "ibv_modify_qp: the transition RESET -> INIT was refused: it requires ACCESS_FLAGS, PORT, and \
             it does not take QKEY"
        );
    }

    #[test]
    fn wrong_values_are_told_from_wrong_attributes() {
        let given = Mask::STATE | Mask::PKEY_INDEX | Mask::PORT | Mask::ACCESS_FLAGS;
        assert!(refused(QpState::RESET, QpState::INIT, given).is_well_formed());
    }

    #[test]
    fn any_state_goes_to_reset_and_any_other_to_error() {
        for from in 0..7 {
            assert!(refused(QpState(from), QpState::RESET, Mask::STATE).is_well_formed());
            let to_error = refused(QpState(from), QpState::ERR, Mask::STATE);
            assert_eq!(to_error.exists(), QpState(from) != QpState::RESET);
        }
    }

    #[test]
    fn a_reliable_queue_pair_has_no_send_queue_error() {
        assert!(rule(ffi::IBV_QPT_RC, QpState::SQE, QpState::RTS).is_none());
        assert!(rule(ffi::IBV_QPT_UC, QpState::SQE, QpState::RTS).is_some());
    }
}
