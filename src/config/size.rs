//! Sizes as people write them: `100MiB`, `1GiB`. `M` and `MB` are read as `MiB`, as by Synapse.

use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

/// The units in bytes, the largest first.
const UNITS: [(u64, &str); 4] = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"), (1, "")];

/// Writes a size in the largest unit of which it is a multiple.
pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*value))
}

/// Reads a size: a number, with a unit unless it is in bytes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bytes(u64),
        Text(String),
    }
    let read = match Written::deserialize(deserializer) {
        Ok(Written::Bytes(bytes)) => Some(bytes),
        Ok(Written::Text(text)) => read(&text),
        Err(_) => None,
    };
    read.ok_or_else(|| D::Error::custom("not a size; write it like 100MiB"))
}

fn written(value: u64) -> String {
    let unit = UNITS.iter().find(|(size, _)| value.is_multiple_of(*size));
    match unit.filter(|_| value > 0) {
        Some((1, _)) | None => format!("{value}B"),
        Some((size, unit)) => format!("{}{unit}iB", value / size),
    }
}

fn read(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text.strip_prefix(digits)?.trim();
    let unit = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let mut units = UNITS.iter();
    let (size, _) = units.find(|(_, known)| known.eq_ignore_ascii_case(unit))?;
    digits.parse::<u64>().ok()?.checked_mul(*size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for (text, bytes) in [
            ("0B", 0),
            ("700B", 700),
            ("500KiB", 500 << 10),
            ("100MiB", 100 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(written(bytes), text);
            assert_eq!(read(text), Some(bytes), "{text}");
        }
        for text in ["100M", "100 MB", " 100mib ", "102400K"] {
            assert_eq!(read(text), Some(100 << 20), "{text}");
        }
        for text in ["", "M", "ten", "-1M", "1.5M", "1X", "99999999999G"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
