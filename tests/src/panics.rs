//! Panics of background tasks, which tokio would keep to itself.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, Once, PoisonError};

use tokio::runtime::{Handle, Id};

/// By the runtime they happened on: each test has one.
static SEEN: LazyLock<Mutex<HashMap<Id, Vec<String>>>> = LazyLock::new(Mutex::default);

/// Notes every panic of this process from now on.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Ok(runtime) = Handle::try_current() {
                let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
                seen.entry(runtime.id()).or_default().push(info.to_string());
            }
            before(info);
        }));
    });
}

/// What panicked on the runtime of this task.
pub(crate) fn seen() -> Vec<String> {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.get(&Handle::current().id()).cloned().unwrap_or_default()
}
