//! Durations as people write them: `5s`, `90days`, `1year`.
//!
//! Reading accepts all that `humantime` accepts, to the millisecond and up to five hundred years.
//! Writing uses a single unit, so that a default reads as it was meant (`90days`, not two months,
//! 29 days and some minutes).

use std::time::Duration;

use serde::{Deserializer, Serializer, de::Error as _};

/// Maximum duration: five hundred years. More is a typing error, and written in milliseconds it
/// could not be read back: `humantime` counts them in nanoseconds of 64 bits.
const LONGEST: Duration = Duration::from_secs(500 * 31_557_600);

/// The units in milliseconds, the largest first. There is no month: nobody means 30.44 days.
const UNITS: [(u128, &str, &str); 6] = [
    (31_557_600_000, "year", "years"),
    (86_400_000, "day", "days"),
    (3_600_000, "h", "h"),
    (60_000, "m", "m"),
    (1000, "s", "s"),
    (1, "ms", "ms"),
];

/// Writes a duration, to the millisecond.
pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&written(*value))
}

/// Reads a duration. Fractions of a millisecond are cut off, because they could not be written.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let value: Duration = humantime_serde::deserialize(deserializer)?;
    if value > LONGEST {
        return Err(D::Error::custom(
            "the duration is too long; use 500years or less",
        ));
    }
    Ok(Duration::new(
        value.as_secs(),
        value.subsec_millis() * 1_000_000,
    ))
}

fn written(value: Duration) -> String {
    let millis = value.as_millis();
    UNITS
        .iter()
        .find(|(size, ..)| millis > 0 && millis.is_multiple_of(*size))
        .map(|(size, one, many)| {
            let n = millis / size;
            format!("{n}{}", if n == 1 { one } else { many })
        })
        .unwrap_or_else(|| "0s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        struct Holder(#[serde(with = "super")] Duration);
        for (text, millis) in [
            ("0s", 0),
            ("5s", 5000),
            ("1500ms", 1500),
            ("10m", 600_000),
            ("90days", 90 * 86_400_000),
            ("1day", 86_400_000),
            ("1year", 31_557_600_000),
        ] {
            let value = Holder(Duration::from_millis(millis));
            assert_eq!(serde_json::to_value(&value).unwrap(), text);
            assert_eq!(
                serde_json::from_value::<Holder>(text.into()).unwrap(),
                value
            );
        }
        let cut: Holder = serde_json::from_value("1ms 999us".into()).unwrap();
        assert_eq!(cut, Holder(Duration::from_millis(1)));
        let too_long = serde_json::from_value::<Holder>("501years".into()).unwrap_err();
        assert!(too_long.to_string().contains("500years"), "{too_long}");
        let longest = serde_json::from_value::<Holder>("500years".into()).unwrap();
        assert_eq!(serde_json::to_value(&longest).unwrap(), "500years");
        let in_millis = Holder(LONGEST - Duration::from_millis(1));
        let written = serde_json::to_value(&in_millis).unwrap();
        assert_eq!(
            serde_json::from_value::<Holder>(written).unwrap(),
            in_millis
        );
        let months: Holder = serde_json::from_value("12 months".into()).unwrap();
        assert!(months.0 > Duration::from_secs(364 * 86_400));
    }
}
