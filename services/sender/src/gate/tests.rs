//! The gate as a whole, in paused time.

use futures_util::FutureExt;
use prometheus::Registry;

use super::*;

/// The queues of [`gate`], as sources.
const FRESH: usize = 0;
const DUE: usize = 1;

/// Before a queue of the fresh and one of the due lane.
fn gate() -> Arc<Gate> {
    let gate = Gate::new(Metrics::new(&Registry::new()));
    assert_eq!((gate.room(Lane::Fresh, 0, 256), gate.room(Lane::Due, 0, 64)), (FRESH, DUE));
    gate
}

/// A delivery to a webhook of its own organization.
fn to(webhook: WebhookId, slots: u32, source: usize) -> Asking<'static> {
    let organization = OrganizationId(webhook.0);
    // Of a message of its own, for as long as a test runs.
    let seat = Box::leak(Box::default());
    Asking { webhook, organization, source, seat, slots, rate_limit: None, has_place: false }
}

async fn go(gate: &Arc<Gate>, webhook: WebhookId) -> Permit {
    match gate.admit(to(webhook, 2, FRESH)).await {
        Admission::Go(permit) => permit,
        Admission::Park(wait, cause) => panic!("parked for {wait:?}: {cause:?}"),
    }
}

/// As many requests of the webhook as may be in flight at once.
async fn fill(gate: &Arc<Gate>, asking: Asking<'_>) -> Vec<Permit> {
    let mut permits = Vec::new();
    while let Admission::Go(permit) = gate.admit(asking).await {
        permits.push(permit);
    }
    permits
}

/// Makes the gate know how long a webhook takes to answer, which it has done often.
fn teach(gate: &Gate, webhook: WebhookId, takes_s: f64) {
    let mut lines = gate.lines();
    let place = lines.open(&to(webhook, 256, FRESH), Instant::now()).unwrap();
    let line = lines.at(place).line;
    line.pace.learn(takes_s);
    for _ in 0..256 {
        assert_eq!(line.note(Ending::Taken, Instant::now()), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_third_request_to_a_webhook_with_two_slots_waits_for_one_of_them() {
    let (gate, webhook) = (gate(), WebhookId::new());
    let (first, _second) = (go(&gate, webhook).await, go(&gate, webhook).await);
    let third = tokio::spawn({
        let gate = Arc::clone(&gate);
        async move { go(&gate, webhook).await }
    });
    tokio::task::yield_now().await;
    assert!(!third.is_finished());
    drop(first);
    third.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_would_wait_long_is_parked_with_places_in_a_row() {
    let (gate, webhook) = (gate(), WebhookId::new());
    teach(&gate, webhook, 0.9);
    let _busy = [go(&gate, webhook).await, go(&gate, webhook).await];
    let mut places = Vec::new();
    for _ in 0..4 {
        match gate.admit(to(webhook, 2, FRESH)).await {
            Admission::Park(place, Cause::Busy) => places.push(place.as_secs_f64()),
            other => panic!("there is no slot: {other:?}"),
        }
    }
    for (at, place) in places.iter().enumerate() {
        let expected = 1.0 + at as f64 * 0.45;
        assert!((place - expected).abs() < 0.1, "{places:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn places_follow_each_other_no_faster_than_the_room_lets_requests_start() {
    let (gate, webhook) = (gate(), WebhookId::new());
    teach(&gate, webhook, 3.2);
    // Of a queue of 64 a slow webhook gets 16 places, however many slots it has.
    let _busy = fill(&gate, to(webhook, 256, DUE)).await;
    let place = async || match gate.admit(to(webhook, 256, DUE)).await {
        Admission::Park(place, _) => place.as_secs_f64(),
        Admission::Go(_) => panic!("there is no room"),
    };
    let (first, second) = (place().await, place().await);
    assert!((second - first - 0.2).abs() < 0.01, "{first} and {second}");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_hangs_holds_no_delivery_for_longer_than_a_turn_that_is_near() {
    let (gate, webhook) = (gate(), WebhookId::new());
    let _busy = [go(&gate, webhook).await, go(&gate, webhook).await];
    assert!(matches!(gate.admit(to(webhook, 2, FRESH)).await, Admission::Park(..)));
}

#[tokio::test(start_paused = true)]
async fn eight_webhooks_that_hang_leave_room_for_a_ninth_in_a_due_queue() {
    for takes_s in [None, Some(15.0)] {
        let gate = gate();
        let mut hanging = Vec::new();
        for webhook in (0..8).map(|_| WebhookId::new()) {
            takes_s.inspect(|takes_s| teach(&gate, webhook, *takes_s));
            hanging.extend(fill(&gate, to(webhook, 16, DUE)).await);
        }
        assert!((8..=32).contains(&hanging.len()), "{} in flight, {takes_s:?}", hanging.len());
        let ninth = WebhookId::new();
        teach(&gate, ninth, 0.1);
        assert_eq!(fill(&gate, to(ninth, 16, DUE)).await.len(), 16);
    }
}

#[tokio::test(start_paused = true)]
async fn an_organization_whose_ten_thousand_webhooks_all_hang_leaves_room_for_another() {
    let gate = gate();
    let hanging = OrganizationId::new();
    let first = Asking { organization: hanging, ..to(WebhookId::new(), 16, FRESH) };
    {
        // As it is known after a first round of timeouts.
        let mut lines = gate.lines();
        let place = lines.open(&first, Instant::now()).unwrap();
        lines.at(place).share.pace.learn(15.0);
    }
    let mut in_flight = Vec::new();
    let mut places = Vec::new();
    for _ in 0..10_000 {
        let asking = Asking { organization: hanging, ..to(WebhookId::new(), 16, FRESH) };
        match gate.admit(asking).await {
            Admission::Go(permit) => in_flight.push(permit),
            Admission::Park(place, cause) => places.push((place, cause)),
        }
    }
    assert!((128..=200).contains(&in_flight.len()), "{} in flight", in_flight.len());
    let other = WebhookId::new();
    teach(&gate, other, 0.1);
    assert_eq!(fill(&gate, to(other, 16, FRESH)).await.len(), 16);
    // And they come back one after another, not all in a second.
    let soon = places.iter().filter(|(place, _)| *place < Duration::from_secs(10)).count();
    assert!(soon < places.len() / 5, "{soon} of {} come back within ten seconds", places.len());
}

#[tokio::test(start_paused = true)]
async fn webhooks_that_were_quick_and_hang_at_once_leave_room_for_those_of_their_organization_that_are_well()
{
    let gate = gate();
    let organization = OrganizationId::new();
    let of_it = |webhook| Asking { organization, ..to(webhook, 64, DUE) };
    let mut hanging = Vec::new();
    for webhook in [(); 3].map(|()| WebhookId::new()) {
        teach(&gate, webhook, 0.001);
        hanging.extend(fill(&gate, of_it(webhook)).await);
    }
    // As long as requests hang that have no end before their time is over.
    for _ in 0..100 {
        let well = WebhookId::new();
        teach(&gate, well, 0.001);
        match gate.admit(of_it(well)).await {
            Admission::Go(permit) => assert_eq!(permit.ended(Ending::Taken), None),
            Admission::Park(wait, cause) => panic!("{} hang; parked for {wait:?}: {cause:?}", hanging.len()),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Also beside another organization's.
    let another = gate.admit(to(WebhookId::new(), 2, DUE)).await;
    assert!(matches!(another, Admission::Go(_)));
    let well = WebhookId::new();
    teach(&gate, well, 0.001);
    assert!(matches!(gate.admit(of_it(well)).await, Admission::Go(_)));
    drop(another);
}

#[tokio::test(start_paused = true)]
async fn of_a_webhook_that_has_taken_nothing_four_requests_are_in_flight_and_each_that_it_takes_allows_one_more()
 {
    let (gate, webhook) = (gate(), WebhookId::new());
    let mut first = fill(&gate, to(webhook, 16, FRESH)).await;
    assert_eq!(first.len(), 4);
    for (permit, ending) in
        first.drain(..).zip([Ending::Taken, Ending::Refused, Ending::Taken, Ending::Refused])
    {
        assert_eq!(permit.ended(ending), None);
    }
    assert_eq!(fill(&gate, to(webhook, 16, FRESH)).await.len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_whose_breaker_was_open_begins_with_one_request() {
    let (gate, webhook) = (gate(), WebhookId::new());
    teach(&gate, webhook, 0.1);
    let probe = Duration::from_secs(30);
    let places = [(); 3].map(|()| gate.take_place_behind_probe(&to(webhook, 10, FRESH), probe).as_secs_f64());
    for (at, place) in places.iter().enumerate() {
        assert!((place - 30.0 - at as f64 * 0.01).abs() < 0.005, "{places:?}");
    }
    assert_eq!(fill(&gate, to(webhook, 10, FRESH)).await.len(), 1);
    assert_eq!(go(&gate, webhook).await.ended(Ending::Taken), None);
    assert_eq!(fill(&gate, to(webhook, 10, FRESH)).await.len(), 2);
}

#[test]
fn what_waits_for_a_probe_does_so_in_one_step_where_that_makes_it_little_later() {
    let gate = gate();
    for (seconds, about) in [(20, 20), (29, 30), (100, 120), (550, 600)] {
        let asking = to(WebhookId::new(), 10, FRESH);
        let place = gate.take_place_behind_probe(&asking, Duration::from_secs(seconds));
        assert_eq!(place.as_secs(), about, "behind a probe in {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_waits_for_room_in_its_lane_is_not_before_a_fresh_delivery() {
    let (gate, organization, webhook) = (gate(), OrganizationId::new(), WebhookId::new());
    let ours = |webhook, source| Asking { organization, ..to(webhook, 16, source) };
    let mut hanging = Vec::new();
    while let Some(Admission::Go(permit)) = gate.admit(ours(WebhookId::new(), DUE)).now_or_never() {
        hanging.push(permit);
    }
    let mut retry = Box::pin(gate.admit(ours(webhook, DUE)));
    assert!((&mut retry).now_or_never().is_none(), "it waits for room");
    let fresh = gate.admit(ours(webhook, FRESH)).now_or_never();
    assert!(matches!(fresh, Some(Admission::Go(_))), "{fresh:?}");
    drop(hanging);
    assert!(matches!(retry.await, Admission::Go(_)));
}

#[tokio::test(start_paused = true)]
async fn five_requests_without_an_answer_open_the_breaker() {
    let (gate, webhook) = (gate(), WebhookId::new());
    for expected in [None, None, None, None, Some(5)] {
        assert_eq!(go(&gate, webhook).await.ended(Ending::Unanswered), expected);
    }
    let next = gate.admit(to(webhook, 2, FRESH)).await;
    assert!(matches!(next, Admission::Park(..)), "nothing is sent until the database has heard: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_events_for_sixteen_webhooks_waits_here_beside_another_organization() {
    let (gate, organization) = (gate(), OrganizationId::new());
    let webhooks = [(); 16].map(|()| WebhookId::new());
    for webhook in webhooks {
        teach(&gate, webhook, 0.001);
    }
    let _another = go(&gate, WebhookId::new()).await;
    let seats: Vec<Seat> = (0..60).map(|_event| Seat::default()).collect();
    let mut burst = Vec::new();
    for (seat, webhook) in seats.iter().flat_map(|seat| webhooks.map(|webhook| (seat, webhook))) {
        let mut admission = Box::pin(gate.admit(Asking { organization, seat, ..to(webhook, 64, FRESH) }));
        match (&mut admission).now_or_never() {
            Some(Admission::Park(wait, cause)) => panic!("parked for {wait:?}: {cause:?}"),
            Some(Admission::Go(permit)) => burst.push(async { drop(permit) }.boxed()),
            None => burst.push(async { assert!(matches!(admission.await, Admission::Go(_))) }.boxed()),
        }
    }
    let here = || {
        let room = &gate.lines().rooms[FRESH];
        (room.messages, room.places.taken())
    };
    assert_eq!(here(), (61, 1 + 60 * webhooks.len()));
    futures_util::future::join_all(burst).await;
    assert_eq!(here(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_has_its_seat_until_the_last_of_its_deliveries_has_ended_and_what_is_parked_has_none() {
    let (gate, organization, seat) = (gate(), OrganizationId::new(), Seat::default());
    let of_message = |webhook, slots| Asking { organization, seat: &seat, ..to(webhook, slots, FRESH) };
    let messages = || gate.lines().rooms[FRESH].messages;
    let [first, second] = [WebhookId::new(), WebhookId::new()].map(|webhook| of_message(webhook, 1));
    let (Admission::Go(one), Admission::Go(other)) = (gate.admit(first).await, gate.admit(second).await)
    else {
        panic!("both have a slot");
    };
    assert_eq!(messages(), 1);
    drop(one);
    assert_eq!(messages(), 1);
    drop(other);
    assert_eq!(messages(), 0);
    let _busy = gate.admit(of_message(first.webhook, 1)).await;
    let limited = Asking { rate_limit: Some(1), ..to(WebhookId::new(), 16, FRESH) };
    let _first = gate.admit(limited).await;
    for parked in [to(first.webhook, 1, FRESH), limited] {
        assert!(matches!(gate.admit(parked).await, Admission::Park(..)));
    }
    assert_eq!(messages(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_is_divided_among_the_senders_and_what_is_above_it_gets_places() {
    let (gate, webhook) = (gate(), WebhookId::new());
    gate.share_limits_among(2);
    let asking = Asking { rate_limit: Some(10), ..to(webhook, 16, FRESH) };
    let mut waits = Vec::new();
    for _ in 0..12 {
        match gate.admit(asking).await {
            Admission::Go(permit) => drop(permit),
            Admission::Park(wait, Cause::Limited) => waits.push(wait.as_secs_f64()),
            other => panic!("{other:?}"),
        }
    }
    // Two at once or shortly after, the others every 200 ms from the shortest delay on.
    assert_eq!(waits.len(), 10);
    for pair in waits.windows(2) {
        assert!((pair[1] - pair[0] - 0.2).abs() < 0.02, "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn all_that_wait_get_their_turn_when_slots_come_free_together() {
    let (gate, webhook) = (gate(), WebhookId::new());
    let busy = [go(&gate, webhook).await, go(&gate, webhook).await];
    let waiting: Vec<_> = (0..40)
        .map(|_| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { drop(go(&gate, webhook).await) })
        })
        .collect();
    tokio::task::yield_now().await;
    assert_eq!(gate.lines().by_webhook[&webhook].waiting(), 40);
    drop(busy);
    for turn in waiting {
        turn.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn all_of_an_organization_that_wait_for_room_get_it_when_requests_end() {
    let (gate, organization) = (gate(), OrganizationId::new());
    let asking = || Asking { organization, ..to(WebhookId::new(), 16, DUE) };
    let mut busy = Vec::new();
    for _ in 0..48 {
        match gate.admit(asking()).await {
            Admission::Go(permit) => busy.push(permit),
            Admission::Park(..) => panic!("{} in flight", busy.len()),
        }
    }
    let waiting: Vec<_> = (0..12)
        .map(|_| {
            let (gate, asking) = (Arc::clone(&gate), asking());
            tokio::spawn(async move { matches!(gate.admit(asking).await, Admission::Go(_)) })
        })
        .collect();
    tokio::task::yield_now().await;
    drop(busy);
    for turn in waiting {
        assert!(turn.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn what_counts_is_the_webhooks_own_queue() {
    let (gate, webhook) = (gate(), WebhookId::new());
    teach(&gate, webhook, 0.1);
    let _others = fill(&gate, to(WebhookId::new(), 4, FRESH)).await;
    // It leaves as much free as it has in a queue of 64, whatever other queues there are.
    assert_eq!(fill(&gate, to(webhook, 256, DUE)).await.len(), 32);
}

#[tokio::test]
async fn what_is_held_is_counted_until_it_is_dropped() {
    let gate = gate();
    let held: Vec<_> = std::iter::from_fn(|| gate.hold(DUE, Kept::LongEnoughToPark)).collect();
    assert_eq!(held.len(), 16);
    let late: Vec<_> = std::iter::from_fn(|| gate.hold(DUE, Kept::Briefly)).collect();
    assert_eq!(late.len(), 16);
    drop((held, late));
    assert_eq!(gate.lines().rooms[DUE].held, 0);
}

#[tokio::test]
async fn nothing_stays_counted_when_all_have_left() {
    let (gate, webhook) = (gate(), WebhookId::new());
    for _ in 0..3 {
        drop(go(&gate, webhook).await);
    }
    let lines = gate.lines();
    let share = &lines.shares[&(OrganizationId(webhook.0), FRESH)];
    assert_eq!((lines.rooms[FRESH].places.taken(), share.places.taken()), (0, 0));
    assert!(lines.by_webhook[&webhook].is_idle());
}
