//! Credentials and keys from the command line. No complaint about them repeats what they are.

use fluxar::{Accounts, Auth, Identity, Psk};

use crate::args::Hidden;
use crate::failure::Failure;

const FORMS: &str = "bearer=TOKEN, api-key=KEY or credentials=USER:PASSWORD";
const DOOR_FORMS: &str = "bearer=TOKEN:IDENTITY, api-key=KEY:IDENTITY or credentials=USER:PASSWORD";

/// A client's credentials.
pub(crate) fn credentials(argument: &Hidden) -> Result<Auth, Failure> {
    let (scheme, secret) = named("--auth", argument, FORMS)?;
    match (scheme, secret.split_once(':')) {
        ("bearer", _) => Ok(Auth::bearer(secret)),
        ("api-key", _) => Ok(Auth::api_key(secret)),
        ("credentials", Some((user, password))) => Ok(Auth::credentials(user, password)),
        _ => Err(expected("--auth", FORMS)),
    }
}

/// A pre-shared key.
pub(crate) fn psk(argument: &Hidden) -> Result<Psk, Failure> {
    let (id, secret) = named("--psk", argument, "ID=HEX")?;
    let digits = secret.trim().chars().map(|char| char.to_digit(16)).collect::<Option<Vec<_>>>();
    let (pairs, rest) = digits.as_deref().unwrap_or_default().as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() || id.len() > 255 {
        return Err(expected("--psk", "ID=HEX, with at most 255 bytes and an even number of hex digits"));
    }
    Ok(Psk::new(id, pairs.iter().map(|[high, low]| (high << 4 | low) as u8).collect::<Vec<_>>()))
}

/// Who may come to a server.
pub(crate) fn accounts(arguments: &[Hidden]) -> Result<Accounts, Failure> {
    arguments.iter().try_fold(Accounts::new(), |accounts, argument| {
        let (scheme, secret) = named("--auth", argument, DOOR_FORMS)?;
        match (scheme, secret.split_once(':'), secret.rsplit_once(':')) {
            ("credentials", Some((user, password)), _) => {
                Ok(accounts.password(user, password, Identity::new(user)))
            }
            ("bearer", _, Some((token, identity))) => Ok(accounts.bearer(token, Identity::new(identity))),
            ("api-key", _, Some((key, identity))) => Ok(accounts.api_key(key, Identity::new(identity))),
            _ => Err(expected("--auth", DOOR_FORMS)),
        }
    })
}

/// What stands before the first `=`, and what behind it, in a file or in a variable.
fn named<'a>(option: &str, argument: &'a Hidden, forms: &str) -> Result<(&'a str, String), Failure> {
    let (name, value) = argument.0.split_once('=').ok_or_else(|| expected(option, forms))?;
    let bad = |place: &str, error: &dyn std::fmt::Display| {
        Failure::usage(format_args!("cannot take what {option} says from {place}: {error}"))
    };
    let secret = if let Some(path) = value.strip_prefix('@') {
        std::fs::read_to_string(path).map_err(|error| bad(path, &error))?.trim_end().to_owned()
    } else if let Some(variable) = value.strip_prefix("env:") {
        std::env::var(variable).map_err(|error| bad(variable, &error))?
    } else {
        value.to_owned()
    };
    Ok((name, secret))
}

fn expected(option: &str, forms: &str) -> Failure {
    Failure::usage(format_args!("bad {option}: expected {forms}"))
}

#[cfg(test)]
mod tests {
    use fluxar::AuthKind;

    use super::*;

    fn hidden(text: &str) -> Hidden {
        Hidden(text.to_owned())
    }

    #[test]
    fn credentials_of_every_scheme() {
        let kind = |text: &str| format!("{:?}", credentials(&hidden(text)).unwrap().scheme());
        assert_eq!(kind("bearer=a:b=c"), "\"bearer\"");
        let auth = credentials(&hidden("bearer=a:b=c")).unwrap();
        assert!(matches!(auth.kind(), AuthKind::Bearer("a:b=c")));
        let auth = credentials(&hidden("api-key=")).unwrap();
        assert!(matches!(auth.kind(), AuthKind::ApiKey("")));
        let auth = credentials(&hidden("credentials=ada:a:b")).unwrap();
        assert!(matches!(auth.kind(), AuthKind::Credentials { username: "ada", password: "a:b" }));
    }

    #[test]
    fn no_complaint_tells_a_secret() {
        for bad in ["t0psecret", "Bearer=t0psecret", "credentials=t0psecret", "bearer=@/t0p/no/file"] {
            let failure = format!("{:?}", credentials(&hidden(bad)).unwrap_err());
            assert!(!failure.contains("secret"), "{failure}");
            assert!(failure.contains("--auth"), "{failure}");
        }
        for bad in ["0a1b2c", "id=", "id=0a1", "id=0a1x", "id=env:FLUXAR_NO_SUCH_VARIABLE"] {
            let failure = format!("{:?}", psk(&hidden(bad)).unwrap_err());
            assert!(!failure.contains("0a1") && failure.contains("--psk"), "{failure}");
        }
        for bad in ["bearer=t0psecret", "credentials=t0psecret", "x=y:z"] {
            let failure = format!("{:?}", accounts(&[hidden(bad)]).unwrap_err());
            assert!(!failure.contains("secret"), "{failure}");
        }
        assert_eq!(format!("{:?}", hidden("t0psecret")), "Hidden");
    }

    #[test]
    fn keys_are_hex() {
        let key = psk(&hidden("site-7=00fF")).unwrap();
        assert_eq!(key.id(), "site-7");
    }
}
