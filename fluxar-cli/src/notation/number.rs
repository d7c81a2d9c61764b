//! Numbers: the three widths of floats, and integers beyond 64 bits.

use super::head::{self, Width, major};

/// Bits of the NaN that has no more to say, in each width.
const NAN: [(Width, u64); 3] =
    [(Width::Two, 0x7e00), (Width::Four, 0x7fc0_0000), (Width::Eight, 0x7ff8_0000_0000_0000)];

/// The value of a float of this width; `None` where floats have no such width.
pub(super) fn widen(width: Width, bits: u64) -> Option<f64> {
    match width {
        Width::Two => Some(from_half(bits as u16)),
        Width::Four => Some(f64::from(f32::from_bits(bits as u32))),
        Width::Eight => Some(f64::from_bits(bits)),
        _ => None,
    }
}

/// The bits of `value` in this width; `None` where it does not hold it exactly.
pub(super) fn narrow(width: Width, value: f64) -> Option<u64> {
    if value.is_nan() {
        return NAN.iter().find(|(nan, _)| *nan == width).map(|(_, bits)| *bits);
    }
    match width {
        Width::Two => to_half(value).map(u64::from),
        Width::Four => to_single(value).map(u64::from),
        Width::Eight => Some(value.to_bits()),
        _ => None,
    }
}

/// The shortest width that holds `value` exactly.
pub(super) fn shortest(value: f64) -> Width {
    let exact = |width: &Width| narrow(*width, value).is_some();
    [Width::Two, Width::Four].into_iter().find(exact).unwrap_or(Width::Eight)
}

/// Writes a float, in the shortest width where none is asked for. `false` where that width does not hold it.
#[must_use]
pub(super) fn write_float(out: &mut Vec<u8>, value: f64, width: Option<Width>) -> bool {
    let width = width.unwrap_or_else(|| shortest(value));
    let bits = narrow(width, value);
    if let Some(bits) = bits {
        head::write(out, major::SIMPLE, width, bits);
    }
    bits.is_some()
}

fn from_half(half: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + mantissa) * 2f64.powi(exponent - 25),
    };
    if half >> 15 == 0 { magnitude } else { -magnitude }
}

fn to_single(value: f64) -> Option<u32> {
    let single = value as f32;
    (f64::from(single).to_bits() == value.to_bits()).then(|| single.to_bits())
}

fn to_half(value: f64) -> Option<u16> {
    let bits = to_single(value)?;
    let sign = (bits >> 16 & 0x8000) as u16;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    // How many bits go, and what is left of exponent and mantissa then.
    let (dropped, from, base) = match exponent {
        -127 if mantissa == 0 => return Some(sign),
        128 if mantissa == 0 => return Some(sign | 0x7c00),
        -14..=15 => (13, mantissa, (exponent + 15) << 10),
        // Below that the leading one is written out, further and further to the right.
        -24..=-15 => (-exponent - 1, mantissa | 0x80_0000, 0),
        _ => return None,
    };
    (from & ((1 << dropped) - 1) == 0).then_some(sign | base as u16 | (from >> dropped) as u16)
}

/// A natural number of any size: big-endian, without leading zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Natural(Vec<u8>);

impl Natural {
    /// The number that `digits` of base `radix` are.
    pub(super) fn from_digits(digits: &str, radix: u32) -> Option<Self> {
        let mut little: Vec<u8> = Vec::new();
        for digit in digits.chars() {
            let mut carry = digit.to_digit(radix)?;
            for byte in &mut little {
                carry += u32::from(*byte) * radix;
                *byte = carry as u8;
                carry >>= 8;
            }
            if carry > 0 {
                little.push(carry as u8);
            }
        }
        little.reverse();
        Some(Self(little))
    }

    pub(super) fn to_u64(&self) -> Option<u64> {
        let fits = self.0.len() <= 8;
        fits.then(|| self.0.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
    }

    pub(super) fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// One less. Zero stays.
    pub(super) fn pred(mut self) -> Self {
        if self.is_zero() {
            return self;
        }
        for byte in self.0.iter_mut().rev() {
            let (less, borrow) = byte.overflowing_sub(1);
            *byte = less;
            if !borrow {
                break;
            }
        }
        let zeros = self.0.iter().take_while(|byte| **byte == 0).count();
        self.0.drain(..zeros);
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
