//! A point's attributes in the form in which labels are remembered.
//!
//! This is not where attributes become labels: where names collide, or a value is no short text, whole number or truth,
//! the point is left to `labels`; and what is written here is remembered only once it was seen to mean the same.

use std::io::Write as _;

use super::{Strategy, label_name};
use crate::decode::sent::{push_bytes, push_tagged};
use crate::decode::{Field, Message};

/// What a number's point holds beside its attributes.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) start_ns: u64,
    pub(super) time_ns: u64,
    pub(super) flags: u32,
    pub(super) value: f64,
}

impl Point {
    /// Reads a point, and appends its attributes as labels. Nothing where it has more than that (exemplars), or is
    /// written in another way than most.
    #[inline]
    pub(super) fn read(bytes: &[u8], strategy: Strategy, labels: &mut Vec<u8>) -> Option<Self> {
        let mut point = Self::default();
        let mut message = Message::new(bytes);
        while let Some((number, field)) = message.next().ok()? {
            match (number, field) {
                (7, Field::Bytes(attribute)) => push_attribute(attribute, strategy, labels)?,
                (2, Field::Fixed64(ns)) => point.start_ns = ns,
                (3, Field::Fixed64(ns)) => point.time_ns = ns,
                (4, Field::Fixed64(bits)) => point.value = f64::from_bits(bits),
                (6, Field::Fixed64(whole)) => point.value = whole as i64 as f64,
                (8, Field::Varint(flags)) => point.flags = flags as u32,
                (2..=8, _) => return None,
                _ => {}
            }
        }
        Some(point)
    }
}

/// Appends an attribute as a label.
#[inline]
fn push_attribute(bytes: &[u8], strategy: Strategy, labels: &mut Vec<u8>) -> Option<()> {
    let [0x0a, key_len @ 0..0x80, rest @ ..] = bytes else { return None };
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let [0x12, any_len @ 0..0x80, any @ ..] = rest else { return None };
    if usize::from(*any_len) != any.len() {
        return None;
    }
    let is_plain = is_plain(key) || !strategy.escapes();
    let mut digits = [0; 20];
    let value = match any {
        [0x0a, len @ 0..0x80, text @ ..] if usize::from(*len) == text.len() => {
            if is_plain {
                // Both forms have the same tags around the texts.
                let name = bytes.get(..key.len() + 3)?;
                return push_tagged(name, &any[1..], labels).then_some(());
            }
            text
        }
        [0x10, 0] => b"false",
        [0x10, 1] => b"true",
        [0x18, ..] => whole_number(any, &mut digits)?,
        _ => return None,
    };
    let pushed = if is_plain {
        push_bytes(key, value, labels)
    } else {
        let name = label_name(std::str::from_utf8(key).ok()?, strategy);
        push_bytes(name.as_bytes(), value, labels)
    };
    pushed.then_some(())
}

/// The text of a value that is a whole number and nothing else.
fn whole_number<'d>(any: &[u8], digits: &'d mut [u8; 20]) -> Option<&'d [u8]> {
    let mut message = Message::new(any);
    let Ok(Some((3, Field::Varint(whole)))) = message.next() else { return None };
    if !message.is_empty() {
        return None;
    }
    let mut left = &mut digits[..];
    write!(left, "{}", whole as i64).ok()?;
    let len = 20 - left.len();
    digits.get(..len)
}

/// Whether a key is a label's name as it is.
#[inline]
fn is_plain(key: &[u8]) -> bool {
    key.first().is_some_and(u8::is_ascii_alphabetic)
        && key.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}
