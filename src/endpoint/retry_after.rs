//! The header `Retry-After` (RFC 9110 §10.2.3).
//!
//! Rules: R15.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{DATE, RETRY_AFTER};

/// How long the server asks to be left alone: seconds or a date, the longest of several. Anything
/// else is ignored; zero and the past count as none.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    // Our own clock may be wrong, and what the server means is a span.
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let now = date.and_then(http_date).unwrap_or(now);
    let lines = headers.get_all(RETRY_AFTER).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let spans = lines.filter_map(|line| {
        // A proxy may have joined several lines with commas, of which a date has one as well.
        let parts: Vec<_> = line.split(',').collect();
        let pairs = parts.windows(2).map(|pair| pair.join(","));
        let singles = parts.iter().copied().map(String::from);
        let spans = singles.chain(pairs).map(|value| span(value.trim(), now));
        spans.max().flatten()
    });
    spans.max().filter(|span| !span.is_zero())
}

fn span(text: &str, now: SystemTime) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    Some(http_date(text)?.duration_since(now).unwrap_or_default())
}

/// Second 60 is a leap second (RFC 9110 §5.6.7), which `httpdate` does not know.
fn http_date(text: &str) -> Option<SystemTime> {
    if let Ok(date) = httpdate::parse_http_date(text) {
        return Some(date);
    }
    let (before, after) = text.rsplit_once(":60")?;
    let last_second = httpdate::parse_http_date(&format!("{before}:59{after}")).ok()?;
    // In `08:60:00` it would be the minute.
    (!after.starts_with(':')).then(|| last_second + Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: &str = "Mon, 23 Nov 2026 12:00:00 GMT";

    fn after(values: &[&str], date: Option<&str>, now: SystemTime) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(RETRY_AFTER, value.parse().unwrap());
        }
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after(&headers, now).map(|span| span.as_secs())
    }

    // K19, FA18
    #[test]
    fn retry_after_is_seconds_or_a_date_and_garbage_zero_and_the_past_are_ignored() {
        let now = httpdate::parse_http_date(NOON).unwrap();
        for (value, seconds) in [
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("Mon, 23 Nov 2026 12:01:30 GMT", Some(90)),
            ("Monday, 23-Nov-26 12:01:30 GMT", Some(90)),
            ("Mon Nov 23 12:01:30 2026", Some(90)),
            ("Mon, 23 Nov 2026 12:01:60 GMT", Some(120)),
            ("Mon Nov 23 12:01:60 2026", Some(120)),
            ("Mon, 23 Nov 2026 11:00:00 GMT", None),
            (NOON, None),
            ("0", None),
            ("99999999999999999999999", Some(u64::MAX)),
            ("soon", None),
            ("-1", None),
            ("7.5", None),
            ("", None),
            ("7s", None),
            ("Mon, 23 Nov 2026 12:60:00 GMT", None),
            ("Mon, 23 Nov 2026 12:01:61 GMT", None),
        ] {
            assert_eq!(after(&[value], None, now), seconds, "{value}");
        }
    }

    // FA18
    #[test]
    fn of_several_the_longest_counts_in_lines_and_in_lists() {
        let now = httpdate::parse_http_date(NOON).unwrap();
        let date = "Mon, 23 Nov 2026 12:01:30 GMT";
        assert_eq!(after(&["5", "60", "7"], None, now), Some(60));
        assert_eq!(after(&["5", date, "soon"], None, now), Some(90));
        assert_eq!(after(&["5, 60,7"], None, now), Some(60));
        assert_eq!(after(&[&format!("5, {date}")], None, now), Some(90));
        assert_eq!(after(&[&format!("{date}, 120")], None, now), Some(120));
        assert_eq!(after(&["soon, 10"], None, now), Some(10));
    }

    // FA18
    #[test]
    fn a_date_counts_from_the_answers_own_date_where_there_is_one() {
        let ours = httpdate::parse_http_date("Mon, 23 Nov 2026 10:00:00 GMT").unwrap();
        let until = &["Mon, 23 Nov 2026 12:00:30 GMT"];
        assert_eq!(after(until, Some(NOON), ours), Some(30));
        assert_eq!(after(until, None, ours), Some(7230));
        assert_eq!(after(until, Some("yesterday"), ours), Some(7230));
        let leap = "Mon, 23 Nov 2026 11:59:60 GMT";
        assert_eq!(after(until, Some(leap), ours), Some(30));
        assert_eq!(
            after(&["30"], Some("Mon, 23 Nov 2026 15:00:00 GMT"), ours),
            Some(30)
        );
    }
}
