//! Why a transition was refused, and the page `transitions.md`: both from the table in `ibverbs_sys::transitions`.

use std::{fmt, io};

use super::attr::QueuePairAttrMask as Mask;
use super::state::QpState;
use crate::ffi;

/// What a transition takes, beside the states themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    required: Mask,
    optional: Mask,
}

/// What the transition takes, or `None` if there is no such transition.
fn rule(qp_type: ffi::ibv_qp_type, from: QpState, to: QpState) -> Option<Rule> {
    let rule = ffi::transitions::rule(qp_type, from.0, to.0)?;
    let mask = Mask::from_bits_retain;
    Some(Rule { required: mask(rule.required), optional: mask(rule.optional) })
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
             This page is made from the table in `ibverbs-sys/src/transitions.rs`, which also explains a\n\
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
            for row in ffi::transitions::TABLE {
                let (from, to) = (QpState(row.from), QpState(row.to));
                if let Some(rule) = rule(qp_type, from, to) {
                    let (required, optional) = (names(rule.required), names(rule.optional));
                    writeln!(page, "| {from} | {to} | {required} | {optional} |").unwrap();
                }
            }
        }
        page
    }

    #[test]
    #[cfg_attr(miri, ignore = "it reads a file")]
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
