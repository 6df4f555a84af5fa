//! What devices and ports say about themselves: attributes, limits and capabilities.

mod caps;
mod device;
mod device_ex;
mod link;
mod port;
#[cfg(test)]
mod tests;

pub use caps::{
    AtomicCap, CqModerationCaps, DeviceCaps, OdpCaps, OdpGeneralCaps, OdpTransportCaps,
    PacketPacingCaps, PciAtomicCaps, PciAtomicSizes, QueuePairTypes, RawPacketCaps, RssCaps,
    RxHashFields, RxHashFunctions, TagMatchingCaps, TagMatchingFlags, TsoCaps,
};
pub use device::DeviceAttr;
pub use device_ex::DeviceAttrEx;
pub use link::{LinkLayer, LinkSpeed, LinkWidth, Mtu, PhysicalState, PortState};
pub use port::{PortAttr, PortCaps, PortCaps2};

/// Writes the accessors of an attribute structure, and a `Debug` that shows all of them by name.
///
/// Masks and identifiers say `as Hex` after their type, so that `Debug` shows them in base 16.
macro_rules! attributes {
    (
        $owner:ident {
            $(
                $(#[$meta:meta])*
                $name:ident($attr:ident) -> $type:ty $(as $shown:ident)? $value:block
            )*
        }
    ) => {
        impl $owner {
            $(
                $(#[$meta])*
                pub fn $name(&self) -> $type {
                    let $attr = self;
                    $value
                }
            )*
        }

        impl std::fmt::Debug for $owner {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let mut shown = f.debug_struct(stringify!($owner));
                $( shown.field(stringify!($name), &$($crate::attr::$shown)?(self.$name())); )*
                shown.finish()
            }
        }
    };
}
pub(crate) use attributes;

/// Shows a number in base 16.
struct Hex<T>(T);

impl<T: std::fmt::LowerHex> std::fmt::Debug for Hex<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Shows a number in base 16, if there is one.
struct HexOption<T>(Option<T>);

impl<T: std::fmt::LowerHex + Copy> std::fmt::Debug for HexOption<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.0.map(Hex), f)
    }
}

/// A limit that C declares as `int`. A negative one makes no sense, so that it is none at all.
fn limit(value: std::ffi::c_int) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
