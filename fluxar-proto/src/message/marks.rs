//! What the protocol itself says in the metadata of publications and deliveries (§12).

use minicbor::encode::Write;

use super::encode::Head;
use super::token::major;

/// Those of its words that are said of one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// 0 is not said.
    pub(crate) qos: u8,
    /// From 1, which is not said; what is more is a retransmission. 0 counts as 1.
    pub(crate) attempt: u32,
    pub(crate) seq: Option<u64>,
    pub(crate) retain: bool,
    pub(crate) retained: bool,
    /// The topic of the message is said.
    pub(crate) topic: bool,
}

impl Marks {
    /// The most that [`write`](Self::write) writes, but for the topic's own bytes.
    pub(crate) const MOST: usize = 64;

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self { attempt: self.attempt, ..Self::default() } && self.attempt <= 1
    }

    /// Writes the entries, each with its key; how many there are.
    #[inline]
    pub(crate) fn write<W: Write>(&self, topic: &str, out: &mut W) -> Result<usize, W::Error> {
        let mut count = 0;
        if self.qos > 0 {
            out.write_all(&[0x63, b'q', b'o', b's', self.qos])?;
            count += 1;
        }
        if self.topic {
            out.write_all(b"\x65topic")?;
            out.write_all(Head::new(major::TEXT, topic.len() as u64).as_bytes())?;
            out.write_all(topic.as_bytes())?;
            count += 1;
        }
        if let Some(seq) = self.seq {
            out.write_all(b"\x63seq")?;
            out.write_all(Head::new(major::UNSIGNED, seq).as_bytes())?;
            count += 1;
        }
        if self.retain {
            out.write_all(b"\x66retain\xf5")?;
            count += 1;
        }
        if self.retained {
            out.write_all(b"\x68retained\xf5")?;
            count += 1;
        }
        if self.attempt > 1 {
            out.write_all(b"\x63dup\xf5\x67attempt")?;
            out.write_all(Head::new(major::UNSIGNED, u64::from(self.attempt)).as_bytes())?;
            count += 2;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;
    use crate::message::{Meta, key};

    // spec: §5.10
    #[test]
    fn what_is_written_is_metadata_with_the_well_known_keys() {
        let all = Marks {
            qos: 2,
            attempt: u32::MAX,
            seq: Some(u64::MAX),
            retain: true,
            retained: true,
            topic: true,
        };
        let topic = "a".repeat(255);
        let mut entries = Vec::new();
        let Ok(count) = all.write(&topic, &mut entries);
        assert!(entries.len() <= Marks::MOST + 3 + topic.len());
        let mut map = std::vec![0xa0 + count as u8];
        map.extend_from_slice(&entries);
        let meta = Meta::decode(&map).unwrap();
        assert_eq!(meta.len(), count);
        assert_eq!(meta.get_u64(key::QOS), Some(2));
        assert_eq!(meta.get_str(key::TOPIC), Some(&*topic));
        assert_eq!(meta.get_u64(key::SEQ), Some(u64::MAX));
        assert_eq!(meta.get_bool(key::RETAIN), Some(true));
        assert_eq!(meta.get_bool(key::RETAINED), Some(true));
        assert_eq!(meta.get_bool(key::DUP), Some(true));
        assert_eq!(meta.get_u64(key::ATTEMPT), Some(u32::MAX.into()));
        assert!(!all.is_empty());
    }

    #[test]
    fn what_goes_without_saying_is_not_said() {
        for attempt in [0, 1] {
            let nothing = Marks { attempt, ..Marks::default() };
            let mut entries = Vec::new();
            assert_eq!(nothing.write("a", &mut entries), Ok(0));
            assert!(entries.is_empty() && nothing.is_empty());
        }
        assert!(!Marks { attempt: 2, ..Marks::default() }.is_empty());
    }
}
