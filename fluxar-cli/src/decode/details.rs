//! What hellos and control messages say, in a few words (§6, §8, §9). Secrets are not among them.

use fluxar::{FromPayload, Raw};
use fluxar_proto::message::{Envelope, Kind, verb};

use crate::notation::{map_entries, one_line, quoted};

/// The entries of a payload that is a map; none where it is not.
struct Map(Vec<(Raw, Raw)>);

impl Map {
    fn of(bytes: &[u8]) -> Self {
        let entries = map_entries(bytes).unwrap_or_default().into_iter();
        Self(entries.filter_map(|(key, value)| Some((Raw::new(key).ok()?, Raw::new(value).ok()?))).collect())
    }

    fn raw(&self, key: &str) -> Option<&Raw> {
        self.0
            .iter()
            .find(|(name, _)| name.decode::<String>().is_ok_and(|name| name == key))
            .map(|(_, value)| value)
    }

    fn get<T: FromPayload>(&self, key: &str) -> Option<T> {
        self.raw(key)?.decode().ok()
    }

    fn map(&self, key: &str) -> Option<Self> {
        Some(Self::of(self.raw(key)?.as_bytes()))
    }

    fn text(&self, key: &str) -> Option<String> {
        self.get::<String>(key).map(|text| quoted(&text))
    }
}

/// What is to be added to the meaning of a message; nothing for most.
pub(super) fn of(envelope: &Envelope<'_>) -> String {
    if envelope.error.is_some() {
        return String::new();
    }
    let payload = envelope.payload.as_bytes();
    let words = match (envelope.kind, envelope.reference, envelope.target) {
        (Kind::Hello, None, None) => offer(&Map::of(payload)),
        (Kind::Hello, Some(_), None) => answer(&Map::of(payload)),
        (Kind::Hello, Some(_), Some(verb::PROOF)) if is_map(payload) => proof(&Map::of(payload)),
        (Kind::Control, None, Some(verb::AUTH)) => vec![scheme(&Map::of(payload))],
        (Kind::Control, None, Some(verb::DRAIN)) => drain(&Map::of(payload)),
        (Kind::Control, None, Some(verb::HANDLED)) => handled(payload),
        (Kind::Control, Some(_), None) => expiry(&Map::of(payload)).into_iter().collect(),
        _ => Vec::new(),
    };
    words.into_iter().map(|words| format!(", {words}")).collect()
}

fn is_map(payload: &[u8]) -> bool {
    map_entries(payload).is_some()
}

fn offer(map: &Map) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(auth) = map.map("auth") {
        words.push(format!("credentials: {}", scheme(&auth)));
    }
    if let Some(id) = map.map("psk").and_then(|psk| psk.text("id")) {
        words.push(format!("pre-shared key {id}"));
    }
    if let Some(handled) = map.map("resume").and_then(|resume| resume.get::<u64>("handled")) {
        words.push(format!("asks for a session to go on: {handled} handled"));
    }
    words
}

fn answer(map: &Map) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(handled) = map.map("resumed").and_then(|resumed| resumed.get::<u64>("handled")) {
        words.push(format!("the session goes on: {handled} handled"));
    }
    if let Some(psk) = map.map("psk") {
        let what = if psk.raw("proof").is_some() {
            "proves the pre-shared key"
        } else {
            "takes up the pre-shared key"
        };
        words.push(what.into());
    }
    if let Some(next) = map.get::<String>("next") {
        let challenge = if map.raw("challenge").is_some() { ", with a challenge" } else { "" };
        words.push(format!("asks for a {}{challenge}", one_line(&next)));
    }
    if let Some(session) = map.map("session") {
        match session.get::<u64>("resume_ms") {
            Some(ms @ 1..) => words.push(format!("outlives its link for {ms} ms")),
            _ => words.push("ends with its link".into()),
        }
        words.extend(expiry(&session));
    }
    words
}

fn proof(map: &Map) -> Vec<String> {
    let mut words = Vec::new();
    if let Some(auth) = map.map("auth") {
        words.push(format!("credentials: {}", scheme(&auth)));
    }
    if map.raw("psk").is_some() {
        words.push("proves the pre-shared key".into());
    }
    if words.is_empty() {
        words.push("has nothing to prove".into());
    }
    words
}

/// How somebody shows who they are, and as whom.
fn scheme(auth: &Map) -> String {
    let scheme = auth.get::<String>("scheme").map_or_else(|| "no scheme".into(), |scheme| one_line(&scheme));
    match auth.text("username").or_else(|| auth.text("name")) {
        Some(name) => format!("{scheme} {name}"),
        None => scheme,
    }
}

fn expiry(map: &Map) -> Option<String> {
    map.get::<u64>("auth_expires_ms").map(|ms| format!("the credentials last for {ms} ms"))
}

fn drain(map: &Map) -> Vec<String> {
    let deadline = map.get::<u64>("deadline_ms").map(|ms| format!("within {ms} ms"));
    let redirect = map.text("redirect").map(|url| format!("go on at {url}"));
    let reason = map.text("reason").map(|reason| format!("because of {reason}"));
    [deadline, redirect, reason].into_iter().flatten().collect()
}

fn handled(payload: &[u8]) -> Vec<String> {
    let Ok(payload) = Raw::new(payload.to_vec()) else { return Vec::new() };
    if let Ok(count) = payload.decode::<u64>() {
        return vec![format!("{count} so far")];
    }
    let lane = payload.decode::<(u64, u64)>().ok();
    lane.map(|(lane, count)| format!("{count} so far on lane {lane}")).into_iter().collect()
}
