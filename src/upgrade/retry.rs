//! Asking again while an engine is being restarted: what has begun must come to an end.

use std::time::Duration;

use crate::engine::{EngineError, Result};

/// How often an engine that went away is asked again, and how long between.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(2);

/// The answer of `call`, asked again while the engine is away.
pub async fn while_away<T>(call: impl AsyncFn() -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        match call().await {
            Err(EngineError::Lost { .. } | EngineError::Unreachable { .. }) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}
