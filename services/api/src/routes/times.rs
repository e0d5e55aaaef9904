//! Times in requests.
