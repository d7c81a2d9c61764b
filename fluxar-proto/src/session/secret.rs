//! What nobody else may see: wiped when it is let go, never shown, compared in constant time (§7.7, §17.4).

use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// `N` bytes that nobody else may see.
#[derive(Clone)]
pub struct Secret<const N: usize>(Zeroizing<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over; what the caller has left of them is the caller's to wipe.
    #[must_use]
    pub fn new(bytes: [u8; N]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }
}

/// In constant time.
impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        is_same(self.as_bytes(), other.as_bytes())
    }
}

impl<const N: usize> Eq for Secret<N> {}

/// Shows nothing of it.
impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether two byte strings are the same, in a time that depends on nothing but their lengths.
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}
