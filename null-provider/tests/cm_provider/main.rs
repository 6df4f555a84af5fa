//! Whether the provider's librdmacm does what the C library does, and notices what that would not survive. The
//! functions are called as C would call them: the safe wrapper would not let these tests do wrong.

mod addresses;
mod common;
mod connections;
mod devices;
mod events;
mod identifiers;
mod multicast;
mod races;
