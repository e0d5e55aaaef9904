//! A database that hangs: it takes connections and statements, and answers nothing.

use cuewire_tests::amqp::publish_through_faults;
use cuewire_tests::{Service, Setup, System, until};

use crate::load::Load;

/// The services that work on events and deliveries.
const WORKING: [Service; 2] = [Service::Router, Service::Sender];

/// Makes the database hang in the middle of a load, and publishes more of it. Returns when the services have
/// noticed.
async fn hang(system: &System, load: &Load<'_>, arrived: usize, then_published: std::ops::Range<usize>) {
    load.receiver.wait_for(arrived).await;
    system.database_proxy().silence();
    publish_through_faults(system.amqp_url(), &load.events[then_published]).await;
    for service in WORKING {
        until(&format!("the {} says that the database hangs", service.name()), async || {
            system.missing(service).await?.contains("\"database\"").then_some(())
        })
        .await;
        let labels = [("component", "database")];
        assert_eq!(system.metric(service, "cuewire_connected", &labels).await, Some(0.0));
    }
}

#[test]
fn while_the_database_hangs_everything_waits_and_when_it_answers_it_goes_on() {
    Setup::processes().proxies().run(async |system| {
        let load = Load::new(system, 600).await;
        publish_through_faults(system.amqp_url(), &load.events[..400]).await;
        hang(system, &load, 100, 400..600).await;
        // Nothing is acknowledged that is not on record: the router has what it was at in its hands.
        assert!(system.sum(Service::Router, "cuewire_router_batches_in_flight").await > 0.0);
        assert!(load.receiver.count() < 600, "nobody knows whether the last events are repeats");
        system.database_proxy().end_silence();
        system.ready().await;
        load.arrives().await;
        system.stop_all().await;
        assert_eq!(load.duplicates(), 0);
    });
}

#[test]
fn a_database_that_hangs_and_breaks_its_connections_off_loses_nothing_even_if_the_router_is_killed() {
    Setup::processes().proxies().run(async |system| {
        let load = Load::new(system, 600).await;
        publish_through_faults(system.amqp_url(), &load.events[..400]).await;
        hang(system, &load, 100, 400..600).await;
        // What it was at is not acknowledged, so that another one gets it.
        system.kill(Service::Router).await;
        system.database_proxy().cut();
        system.database_proxy().end_silence();
        system.start(Service::Router).await;
        load.arrives().await;
        system.ready().await;
        system.stop_all().await;
        load.duplicates();
    });
}
