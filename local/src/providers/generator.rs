//! Generates new deliveries from the events of `events/`. Each has its own identity, which follows from a seed.

use serde_json::Value;

use crate::Error;
use crate::providers::random::{identity, noise, one_of};
use crate::providers::samples::{Catalogue, Fixture};

/// The events that deliveries are made of.
#[derive(Debug, Clone)]
pub struct Orders {
    seed: u64,
    providers: Vec<OfProvider>,
}

#[derive(Debug, Clone, Default)]
struct OfProvider {
    /// Events that are published.
    orders: Vec<Fixture>,
    /// Events that are only stored.
    others: Vec<Fixture>,
}

/// Which events deliveries are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The plainest order of each provider.
    Plainest,
    /// Every event that can get a new identity.
    Every,
}

impl Orders {
    /// Reads the events of `providers`, or of all providers if the list is empty.
    pub fn read(catalogue: &Catalogue, providers: &[String], choice: Choice, seed: u64) -> Result<Self, Error> {
        let mut orders = Self {
            seed,
            providers: Vec::new(),
        };
        if let Some(unknown) = providers.iter().find(|name| !catalogue.names().contains_key(*name)) {
            // The error lists the known providers.
            catalogue.event(unknown, "")?;
        }
        let wanted = |name: &String| providers.is_empty() || providers.contains(name);
        for (provider, names) in catalogue.names().iter().filter(|(name, _)| wanted(name)) {
            let mut its = OfProvider::default();
            match choice {
                Choice::Plainest => its.orders.extend(catalogue.plainest(provider)?),
                Choice::Every => {
                    for name in names {
                        let fixture = catalogue.event(provider, name)?;
                        if catalogue.normalized(provider, name)?.is_none() {
                            // An empty body cannot change, and is always the same event.
                            its.others.extend((!fixture.body()?.is_empty()).then_some(fixture));
                        } else if is_renewable(&fixture)? {
                            its.orders.push(fixture);
                        }
                    }
                }
            }
            orders.providers.push(its);
        }
        Ok(orders)
    }

    /// The order number `index`, not signed yet.
    pub fn order(&self, index: usize) -> Result<Fixture, Error> {
        let mut fixture = self.pick(index, |its| &its.orders)?;
        fixture.renew_as(identity(index, self.seed))?;
        Ok(fixture)
    }

    /// The order number `index`, with an undocumented field of `length` letters.
    pub fn large_order(&self, index: usize, length: usize) -> Result<Fixture, Error> {
        let mut fixture = self.order(index)?;
        add(&mut fixture, &noise(length, self.seed, &index.to_string()))?;
        Ok(fixture)
    }

    /// The delivery number `index` that is not an order event or is not understood.
    pub fn other(&self, index: usize) -> Result<Fixture, Error> {
        let mut fixture = self.pick(index, |its| &its.others)?;
        add(&mut fixture, &identity(index, self.seed).to_string())?;
        Ok(fixture)
    }

    fn pick(&self, index: usize, events: impl Fn(&OfProvider) -> &Vec<Fixture>) -> Result<Fixture, Error> {
        let index = index.to_string();
        let its = one_of(&self.providers, self.seed, &["provider", &index]);
        let fixture = its.and_then(|its| one_of(events(its), self.seed, &["event", &index]));
        fixture
            .cloned()
            .ok_or_else(|| Error::Fixture("events/ has no event of that kind for one of the providers".to_owned()))
    }
}

fn is_renewable(fixture: &Fixture) -> Result<bool, Error> {
    let [mut one, mut other] = [fixture.clone(), fixture.clone()];
    one.renew_as(identity(1, 0))?;
    other.renew_as(identity(2, 0))?;
    Ok(one.body()? != other.body()?)
}

/// Adds a field to the body, or text to a body that is not a JSON object.
pub(crate) fn add(fixture: &mut Fixture, text: &str) -> Result<(), Error> {
    let body = fixture.body()?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(mut object)) => {
            object.insert("added".to_owned(), text.into());
            fixture.set_body(Value::from(object).to_string());
        }
        _ => fixture.set_body([&body, text.as_bytes()].concat()),
    }
    Ok(())
}
