//! How much memory a router has that has read a great many webhooks: the process, as the kernel counts it.

use crate::cost::{Memory, memory_mib};
use crate::figures::{Row, thousands};
use crate::population::Population;
use crate::stack::Stack;

pub(crate) async fn measure(
    stack: &Stack,
    population: &mut Population,
    webhooks: usize,
) -> anyhow::Result<Vec<Row>> {
    population.grow_unannounced(stack, webhooks).await?;
    let router = stack.start("router").await?;
    let known = stack.webhooks_of(&router.health_url).await?;
    anyhow::ensure!(known >= webhooks, "of {webhooks} webhooks the router knows {known}");
    let pid = router.pid()?;
    let mut rows = Vec::new();
    for (memory, when) in [(Memory::Now, "when it is ready"), (Memory::Most, "at most until then")] {
        let name = format!("memory of a router with {} webhooks, {when}", thousands(webhooks));
        rows.push(Row::new(name, "MiB", vec![memory_mib(pid, memory)?]));
    }
    router.stop().await?;
    Ok(rows)
}
