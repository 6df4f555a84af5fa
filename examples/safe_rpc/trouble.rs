//! What can go wrong, by what comes of it.

use std::fmt;

/// Why a connection has ended.
pub(crate) enum Trouble {
    /// The peer is gone, or cannot be reached. The session goes on with another connection.
    Lost(anyhow::Error),
    /// The peer says what it must not say, or has refused what was said. Another connection would not help.
    Wrong(anyhow::Error),
    /// This process cannot keep its promises any more.
    Fatal(anyhow::Error),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Trouble {
        Trouble::Lost(error)
    }
}

impl From<ibverbs::Error> for Trouble {
    fn from(error: ibverbs::Error) -> Trouble {
        Trouble::Lost(error.into())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Trouble {
        Trouble::Lost(error.into())
    }
}

impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Trouble::Lost(error) | Trouble::Wrong(error) | Trouble::Fatal(error)) = self;
        write!(f, "{error:#}")
    }
}
