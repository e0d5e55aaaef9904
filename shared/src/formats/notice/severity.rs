//! How serious an event is, by the words of its operation and of what its data says of a status.

use super::facts::Member;
use super::words::words;

/// How serious an event is: what decides a message's icon and colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::formats) enum Severity {
    /// Something happened.
    Neutral,
    /// Something is well, or done.
    Good,
    /// Something ended or went away, or may need somebody.
    Warning,
    /// Something failed.
    Error,
}

const ERROR: [&str; 13] = [
    "fail", "failed", "failing", "failure", "error", "errored", "errors", "fatal", "critical", "down",
    "rejected", "refused", "crashed",
];
/// Good news of something bad: these outweigh a warning in the same name, as in `deletion_reverted`.
const MENDED: [&str; 6] = ["reverted", "restored", "restore", "recovered", "resolved", "cleared"];
const WARNING: [&str; 18] = [
    "warning",
    "warn",
    "alarm",
    "delete",
    "deleted",
    "deletion",
    "purge",
    "purged",
    "disabled",
    "stopped",
    "expired",
    "lost",
    "degraded",
    "cancelled",
    "canceled",
    "aborted",
    "missing",
    "timeout",
];
const GOOD: [&str; 10] = [
    "completed",
    "finished",
    "succeeded",
    "success",
    "done",
    "ready",
    "approved",
    "delivered",
    "ok",
    "healthy",
];
/// Good as a whole status; in an operation (`NoActiveViewers`) it says nothing.
const GOOD_STATUS: [&str; 4] = ["active", "enabled", "running", "up"];
/// The members of the data that say how something stands.
const STATUS: [&str; 5] = ["status", "current_status", "state", "level", "severity"];

impl Severity {
    pub(super) fn of(operation: &str, members: &[Member<'_>]) -> Self {
        let statuses = members.iter().filter(|member| STATUS.contains(&member.name));
        let by_status = statuses.filter_map(Member::text).map(|status| {
            let whole = status.trim().to_ascii_lowercase();
            if GOOD_STATUS.contains(&whole.as_str()) { Self::Good } else { Self::by_words(status) }
        });
        by_status.fold(Self::by_words(operation), Self::max)
    }

    fn by_words(text: &str) -> Self {
        let words: Vec<String> = words(text).collect();
        let any = |list: &[&str]| words.iter().any(|word| list.contains(&word.as_str()));
        match () {
            () if any(&ERROR) => Self::Error,
            () if any(&MENDED) => Self::Good,
            () if any(&WARNING) => Self::Warning,
            () if any(&GOOD) => Self::Good,
            () => Self::Neutral,
        }
    }

    /// A sign that every chat shows.
    pub(in crate::formats) fn icon(self) -> &'static str {
        match self {
            Self::Neutral => "🔵",
            Self::Good => "🟢",
            Self::Warning => "🟠",
            Self::Error => "🔴",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::conformance::sample;
    use super::super::Notice;
    use super::*;

    #[test]
    fn the_words_of_the_operation_and_the_status_decide() {
        for (event_type, expected) in [
            ("encoding.failed", Severity::Error),
            ("media.errored", Severity::Error),
            ("recordings.error", Severity::Error),
            ("video.failed_to_delete", Severity::Error),
            ("recordings.deleted", Severity::Warning),
            ("transcoder.STOPPED", Severity::Warning),
            ("input.alarm_change", Severity::Warning),
            ("video.deletion_reverted", Severity::Good),
            ("encoding.finished", Severity::Good),
            ("input.status_change", Severity::Good),
            ("transcoder.ACTIVE", Severity::Good),
            ("feeds.started", Severity::Neutral),
            ("viewerConnection.NoActiveViewers", Severity::Neutral),
        ] {
            assert_eq!(Notice::of(&sample(event_type)).severity, expected, "{event_type}");
        }
    }

    #[test]
    fn a_bad_status_outweighs_a_harmless_operation_and_the_previous_status_does_not() {
        let severity = |json: &str| {
            let data = serde_json::from_str(json).unwrap();
            Severity::of("status_change", &super::super::facts::members(Some(&data)))
        };
        assert_eq!(severity(r#"{"previous_status":"active","current_status":"down"}"#), Severity::Error);
        assert_eq!(severity(r#"{"previous_status":"down","current_status":"active"}"#), Severity::Good);
        assert_eq!(severity(r#"{"current_status":"configuring"}"#), Severity::Neutral);
        assert_eq!(severity(r#"{"current_status":"warning"}"#), Severity::Warning);
        assert_eq!(severity(r#"{"status":{"a":1},"state":7}"#), Severity::Neutral);
    }
}
