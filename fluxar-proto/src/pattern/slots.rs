//! What the application names by an id of the wire and a slot of ours.

/// Makes the types of such names.
macro_rules! wire_ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            pub(crate) slot: usize,
            pub(crate) id: $crate::Id,
        }

        impl $name {
            /// The id that it has on the wire.
            pub fn wire_id(self) -> $crate::Id {
                self.id
            }

            /// A small number, unique among what is open at one time: an index for the driver's own tables.
            pub fn slot(self) -> usize {
                self.slot
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.id, f)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.id)
            }
        }
    )*};
}

pub(crate) use wire_ids;
