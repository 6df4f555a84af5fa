//! How the constants of a C `enum` appear here: as an integer newtype with named values.
//!
//! A newer library or device may store a value that this version has never heard of. In a Rust
//! `enum` that would be undefined behaviour; in a newtype it is a number without a name.

macro_rules! c_enum {
    (
        $(#[$meta:meta])*
        pub struct $name:ident: $repr:ty {
            $( $(#[$value_meta:meta])* $value:ident = $raw:expr, $text:literal; )*
        }
    ) => {
        $(#[$meta])*
        ///
        /// A value that has no name here prints as its number and compares like any other.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl $name {
            $( $(#[$value_meta])* pub const $value: $name = $name($raw as $repr); )*

            /// The name of this value, or `None` if this version does not know it.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $( $name::$value => Some($text), )*
                    _ => None,
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.name() {
                    Some(name) => f.pad(name),
                    None => f.pad(&format!("unknown ({})", self.0)),
                }
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match *self {
                    $( $name::$value => f.write_str(concat!(stringify!($name), "::", stringify!($value))), )*
                    _ => write!(f, concat!(stringify!($name), "({})"), self.0),
                }
            }
        }
    };
}
pub(crate) use c_enum;

#[cfg(test)]
mod tests {
    use crate::{EventType, NodeType, QpState, WcStatus};

    #[test]
    fn values_print_as_their_names() {
        assert_eq!(WcStatus::RETRY_EXC_ERR.to_string(), "transport retry count exceeded");
        assert_eq!(format!("{:?}", WcStatus::RETRY_EXC_ERR), "WcStatus::RETRY_EXC_ERR");
        assert_eq!(EventType::PORT_ERR.to_string(), "PORT_ERR");
        assert_eq!(format!("{:>5}|{:<5}|", QpState::RTS, QpState::ERR), "  RTS|ERR  |");
    }

    #[test]
    fn values_without_a_name_print_as_their_numbers() {
        assert_eq!((WcStatus(99).name(), NodeType(-7).name()), (None, None));
        assert_eq!(WcStatus(99).to_string(), "unknown (99)");
        assert_eq!(format!("{:?} {:?}", WcStatus(99), NodeType(-7)), "WcStatus(99) NodeType(-7)");
        assert_eq!(
            format!("{:>13}|{:<13}|", QpState(99), QpState(9)),
            " unknown (99)|unknown (9)  |"
        );
    }
}
