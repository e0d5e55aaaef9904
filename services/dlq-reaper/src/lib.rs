//! dlq-reaper
