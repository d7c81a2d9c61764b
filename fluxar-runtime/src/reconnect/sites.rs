//! Where to connect: the URLs in turn, and where a server has sent its clients.

use fluxar_proto::Instant;

use crate::address::{Address, Transport};

/// Somewhere to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) address: Address,
    /// The application has named it. Where it has not, nobody gets credentials there (§8.6).
    pub(crate) is_own: bool,
}

/// Where a client may connect, and whose turn it is.
#[derive(Debug)]
pub(crate) struct Sites {
    own: Vec<Own>,
    at: usize,
    /// What the next attempt goes to, before all others: whoever sent us there is about to leave.
    redirect: Option<Address>,
    /// Whether redirections are followed to where the application has not named.
    follow: bool,
    /// Nothing else will do, where there is one.
    transport: Option<Transport>,
}

#[derive(Debug)]
struct Own {
    address: Address,
    /// The server has said that it is of no use to come before that.
    not_before: Instant,
}

impl Sites {
    pub(crate) fn new(addresses: Vec<Address>, follow: bool, transport: Option<Transport>) -> Self {
        let own = |address| Own { address, not_before: Instant::ZERO };
        Self { own: addresses.into_iter().map(own).collect(), at: 0, redirect: None, follow, transport }
    }

    /// How many the application has named.
    pub(crate) fn len(&self) -> usize {
        self.own.len()
    }

    /// Where the next attempt goes that is made at `at`, and when it is made: later where no server wants it before. The
    /// redirection goes first, then the URL whose turn it is, then those behind it; one that is not to be asked yet only
    /// where there is no other.
    pub(crate) fn next(&mut self, at: Instant) -> Option<(Site, Instant)> {
        if let Some(address) = self.redirect.take() {
            let is_own = self.find(&address).is_some();
            return Some((Site { address, is_own }, at));
        }
        let turns = (self.at..self.own.len()).chain(0..self.at);
        let index = turns.min_by_key(|index| self.own.get(*index).map(|own| own.not_before.max(at)))?;
        self.at = index;
        let own = self.own.get(index)?;
        Some((Site { address: own.address.clone(), is_own: true }, own.not_before.max(at)))
    }

    /// It was of no use there: the next one's turn.
    pub(crate) fn pass(&mut self, site: &Site) {
        if let Some(index) = self.find(&site.address)
            && self.at == index
        {
            self.at = (index + 1) % self.own.len();
        }
    }

    /// It is of no use to go there before `at`.
    pub(crate) fn put_off(&mut self, site: &Site, at: Instant) {
        if let Some(index) = self.find(&site.address)
            && let Some(own) = self.own.get_mut(index)
        {
            own.not_before = own.not_before.max(at);
        }
    }

    /// There it worked: the next attempts go there again, since the session is known there.
    pub(crate) fn settle(&mut self, site: &Site) {
        self.at = self.find(&site.address).unwrap_or(self.at);
    }

    /// The link was lost there, where the session is still known: the next attempt goes there again, also where a server
    /// has sent us.
    pub(crate) fn stay(&mut self, site: &Site) {
        if !site.is_own {
            self.redirect = Some(site.address.clone());
        }
    }

    /// A server has asked its clients to go to `url`. Where that is not the application's own URL they go only if it
    /// agrees (§8.6). Whether they go.
    pub(crate) fn redirect(&mut self, url: &str) -> bool {
        let address = url.parse::<Address>().ok();
        let address = address.filter(|address| self.follow || self.find(address).is_some());
        let fits = |address: &Address| self.transport.is_none_or(|wanted| wanted == address.transport());
        self.redirect = address.filter(fits);
        self.redirect.is_some()
    }

    fn find(&self, address: &Address) -> Option<usize> {
        self.own.iter().position(|own| own.address == *address)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn sites(follow: bool) -> Sites {
        let addresses = ["a:1", "b:2", "c:3"].map(|url| url.parse().expect("a good URL"));
        Sites::new(addresses.into(), follow, Some(Transport::Tcp))
    }

    /// Where the next attempt goes, and how much later, in milliseconds.
    fn next(sites: &mut Sites) -> (String, u128) {
        let (site, at) = sites.next(NOW).expect("somewhere");
        (site.address.to_string(), (at - NOW).as_millis())
    }

    fn failing(sites: &mut Sites) -> String {
        let (site, _) = sites.next(NOW).expect("somewhere");
        sites.pass(&site);
        site.address.to_string()
    }

    #[test]
    fn urls_are_tried_in_turn_and_round_again() {
        let mut sites = sites(false);
        let tried: Vec<_> = (0..5).map(|_| failing(&mut sites)).collect();
        assert_eq!(tried, ["tcp://a:1", "tcp://b:2", "tcp://c:3", "tcp://a:1", "tcp://b:2"]);
    }

    #[test]
    fn where_it_worked_is_tried_first_the_next_time() {
        let mut sites = sites(false);
        failing(&mut sites);
        let (site, _) = sites.next(NOW).expect("somewhere");
        sites.settle(&site);
        assert_eq!(next(&mut sites), ("tcp://b:2".into(), 0));
    }

    // spec: §16.4
    #[test]
    fn a_server_that_has_said_when_to_come_again_is_left_alone_until_then() {
        let mut sites = sites(false);
        for (url, wait) in [("tcp://a:1", 300), ("tcp://b:2", 200), ("tcp://c:3", 250)] {
            let (site, at) = sites.next(NOW).expect("somewhere");
            assert_eq!((site.address.to_string(), at), (url.into(), NOW));
            sites.put_off(&site, NOW + Duration::from_millis(wait));
            sites.pass(&site);
        }
        assert_eq!(next(&mut sites), ("tcp://b:2".into(), 200));
    }

    // spec: §8.6
    #[test]
    fn a_redirection_to_a_foreign_url_needs_the_applications_consent() {
        let (mut strict, mut free) = (sites(false), sites(true));
        assert!(!strict.redirect("tcp://elsewhere:9"));
        assert_eq!(next(&mut strict), ("tcp://a:1".into(), 0));
        assert!(free.redirect("tcp://elsewhere:9"));
        let (site, _) = free.next(NOW).expect("somewhere");
        assert_eq!((site.address.to_string(), site.is_own), ("tcp://elsewhere:9".into(), false));
    }

    // spec: §8.6
    #[test]
    fn a_redirection_to_an_own_url_goes_first_and_once() {
        let mut sites = sites(false);
        assert!(sites.redirect("tcp://c:3"));
        let (site, _) = sites.next(NOW).expect("somewhere");
        assert_eq!((site.address.to_string(), site.is_own), ("tcp://c:3".into(), true));
        assert_eq!(next(&mut sites), ("tcp://a:1".into(), 0));
    }

    #[test]
    fn a_redirection_that_is_of_no_use_is_none() {
        let mut sites = sites(true);
        assert!(!sites.redirect("no url"));
        assert!(!sites.redirect("unix:///of/another/transport"));
        assert_eq!(next(&mut sites), ("tcp://a:1".into(), 0));
    }
}
