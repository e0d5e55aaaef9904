//! Room for the bodies of events: what all of them and what one caller's may take of the memory, taken as they
//! arrive and given back when their request has ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use bytes::BytesMut;
use cuewire::event::MAX_BATCH_BYTES;
use cuewire::ids::OrganizationId;
use futures_util::StreamExt;

use crate::error::Problem;

/// All bodies in memory at a time, whatever the number of clients.
const MAX_BYTES: usize = 256 * 1024 * 1024;
/// Those of one organization: eight of the largest batches, so that it takes several to fill the room.
const MAX_OWN_BYTES: usize = 64 * 1024 * 1024;

/// Who holds bodies; none: the operator, who publishes for many and is bounded by the room alone.
pub(super) type Holder = Option<OrganizationId>;

/// The room.
#[derive(Debug, Default)]
pub(crate) struct Room(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    by: HashMap<OrganizationId, usize>,
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
enum Full {
    /// All of it is taken.
    Room,
    /// The caller has all that is its own.
    Share,
}

/// What one body has taken; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share<'a> {
    room: &'a Room,
    holder: Holder,
    bytes: usize,
}

impl Room {
    /// Reads a body whole, as far as there is room for it.
    pub(super) async fn read(
        &self,
        holder: Holder,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(Bytes, Share<'_>), Problem> {
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|bytes: usize| bytes > MAX_BATCH_BYTES) {
            return Err(too_large());
        }
        let mut share = Share { room: self, holder, bytes: 0 };
        let mut chunks = body.into_data_stream();
        let mut whole = BytesMut::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| Problem::unreadable("the body broke off"))?;
            if whole.len() + chunk.len() > MAX_BATCH_BYTES {
                return Err(too_large());
            }
            share.take(chunk.len()).map_err(|full| match full {
                Full::Room => Problem::unavailable("too much is being published at once; try again"),
                Full::Share => Problem::too_many(
                    "your requests that are under way hold all the memory that is yours; send fewer at once",
                    None,
                ),
            })?;
            whole.extend_from_slice(&chunk);
        }
        Ok((whole.freeze(), share))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_large() -> Problem {
    Problem::too_large("the body is over 8 MiB; send it in several batches")
}

impl Share<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), Full> {
        let mut taken = self.room.taken();
        if taken.bytes + bytes > MAX_BYTES {
            return Err(Full::Room);
        }
        if let Some(holder) = self.holder {
            let own = taken.by.entry(holder).or_default();
            if *own + bytes > MAX_OWN_BYTES {
                return Err(Full::Share);
            }
            *own += bytes;
        }
        taken.bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.bytes -= self.bytes;
        if let Some(holder) = self.holder
            && let Some(own) = taken.by.get_mut(&holder)
        {
            *own -= self.bytes;
            if *own == 0 {
                taken.by.remove(&holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_organization_cannot_fill_the_room_and_all_is_given_back() {
        let room = Room::default();
        let share = |holder| Share { room: &room, holder, bytes: 0 };
        let greedy = OrganizationId::new();
        let (mut one, mut two) = (share(Some(greedy)), share(Some(greedy)));
        assert_eq!(one.take(MAX_OWN_BYTES), Ok(()));
        assert_eq!(two.take(1), Err(Full::Share));
        assert_eq!(share(Some(OrganizationId::new())).take(1), Ok(()));
        let mut operator = share(None);
        assert_eq!(operator.take(MAX_BYTES - MAX_OWN_BYTES), Ok(()));
        assert_eq!(operator.take(1), Err(Full::Room));
        drop((one, operator));
        assert_eq!(two.take(1), Ok(()));
        drop(two);
        let taken = room.taken();
        assert_eq!((taken.bytes, taken.by.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_and_takes_what_has_arrived() {
        let room = Room::default();
        let (none, holder) = (HeaderMap::new(), Some(OrganizationId::new()));
        let (body, share) = room.read(holder, &none, Body::from("abc")).await.unwrap();
        assert_eq!((body.as_ref(), share.bytes), (b"abc".as_slice(), 3));
        let largest = vec![b' '; MAX_BATCH_BYTES];
        assert!(room.read(holder, &none, Body::from(largest.clone())).await.is_ok());
        assert!(room.read(holder, &none, Body::from([largest, vec![b' ']].concat())).await.is_err());
        drop(share);
        assert_eq!(room.taken().bytes, 0);
    }
}
