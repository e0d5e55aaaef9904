//! Room for the bodies of events: what all of them and what one caller's may take of the memory, taken as they
//! arrive and given back when their request has ended.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use cuewire::event::MAX_BATCH_BYTES;
use cuewire::ids::OrganizationId;
use futures_util::StreamExt;

use crate::error::Problem;
use crate::quota::{Full, Quota, Share};

/// All bodies in memory at a time, whatever the number of clients.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Those of one organization: eight of the largest batches, so that it takes several to fill the room.
const MAX_OWN_BYTES: usize = 64 * 1024 * 1024;

/// Who holds bodies; none: the operator, who publishes for many and is bounded by the room alone.
pub(super) type Holder = Option<OrganizationId>;

/// The room.
#[derive(Debug)]
pub(crate) struct Room(Quota);

impl Default for Room {
    fn default() -> Self {
        Self(Quota::new(MAX_BYTES, MAX_OWN_BYTES))
    }
}

impl Room {
    /// Reads a body whole, as far as there is room for it.
    pub(super) async fn read(
        &self,
        holder: Holder,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, Share), Problem> {
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|bytes: usize| bytes > MAX_BATCH_BYTES) {
            return Err(too_large());
        }
        let mut share = self.0.share(holder);
        let mut chunks = body.into_data_stream();
        let mut whole = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::unreadable("the body broke off"))?;
            if whole.len() + chunk.len() > MAX_BATCH_BYTES {
                return Err(too_large());
            }
            share.take(chunk.len()).map_err(|full| match full {
                Full::All => Problem::unavailable("too much is being published at once; try again"),
                Full::Own => Problem::too_many(
                    "your requests that are under way hold all the memory that is yours; send fewer at once",
                    None,
                ),
            })?;
            whole.extend_from_slice(&chunk);
        }
        Ok((whole.freeze(), share))
    }
}

fn too_large() -> Problem {
    Problem::too_large("the body is over 8 MiB; send it in several batches")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_and_holds_what_has_arrived() {
        let (room, none, holder) = (Room::default(), HeaderMap::new(), Some(OrganizationId::new()));
        let read = async |body: Vec<u8>| room.read(holder, &none, Body::from(body)).await;
        assert_eq!(read(b"abc".to_vec()).await.unwrap().0.as_ref(), b"abc");
        let largest = vec![b' '; MAX_BATCH_BYTES];
        assert_eq!(read([largest.clone(), vec![b' ']].concat()).await.unwrap_err().status, 413);
        let mut held = Vec::new();
        for _ in 0..MAX_OWN_BYTES / MAX_BATCH_BYTES {
            held.push(read(largest.clone()).await.unwrap());
        }
        assert_eq!(read(b"a".to_vec()).await.unwrap_err().status, 429);
        held.pop();
        assert!(read(b"a".to_vec()).await.is_ok());
    }
}
