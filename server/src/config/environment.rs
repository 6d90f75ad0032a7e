//! Reading settings from the environment.

use std::ffi::OsString;

use serde::de::DeserializeOwned;

use super::env_file;
use super::error::SettingsError;
use super::fields::fields;

/// All variables.
pub(super) struct Environment {
    variables: Vec<(String, String)>,
    /// Names of those whose value is no text. It is nobody's business here unless one of them is a setting.
    no_text: Vec<String>,
}

impl Environment {
    /// The process's own, and those of a `.env` file that it does not have.
    pub(super) fn read() -> Result<Self, SettingsError> {
        let own: Vec<_> = std::env::vars_os().collect();
        let mut added: Vec<(OsString, OsString)> = Vec::new();
        for (name, value) in env_file::variables()? {
            let name = name.into();
            // The first of several lines counts.
            if !own.iter().chain(&added).any(|(taken, _)| *taken == name) {
                added.push((name, value.into()));
            }
        }
        Ok(Self::of(own.into_iter().chain(added)))
    }

    /// `std::env::vars` would panic at a value that is no text, and print it.
    fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut read = Self { variables: Vec::new(), no_text: Vec::new() };
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => read.variables.push((name, value)),
                Err(_) => read.no_text.push(name),
            }
        }
        read
    }

    /// One area's settings. Every variable of an area has a default, so that each can be read alone.
    pub(super) fn settings<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        let is_ours = |name: &&String| fields::<T>().contains(&name.to_lowercase().as_str());
        if let Some(name) = self.no_text.iter().find(is_ours) {
            let (variable, expected) = (name.clone().into(), "text in UTF-8");
            return Err(SettingsError::Unfit { variable, expected });
        }
        envy::from_iter(self.variables.iter().cloned()).map_err(|error| {
            let unreadable =
                |variable: &&(String, String)| envy::from_iter::<_, T>([(*variable).clone()]).is_err();
            match self.variables.iter().find(unreadable) {
                Some((name, value)) => SettingsError::OutOfBounds {
                    variable: name.to_uppercase().into(),
                    expected: expected(name),
                    found: value.clone(),
                },
                None => SettingsError::Unreadable(error),
            }
        })
    }
}

/// What a variable holds that is not any text.
fn expected(variable: &str) -> &'static str {
    match variable.to_uppercase().as_str() {
        "HOST" => {
            "an IP address such as 127.0.0.1 or 0.0.0.0, or a name that this machine can resolve to one,"
        }
        "PORT" => "a whole number from 0 to 65535",
        "LOG_FORMAT" => "json or pretty",
        _ => "a whole number without a unit",
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::config::{DatabaseSettings, HttpSettings, LogFormat, LogSettings};

    fn read<T: DeserializeOwned>(name: &str, value: &str) -> Result<T, String> {
        let variables = [("PATH", "/bin"), (name, value), ("SERVICE_NAME", "s")];
        let environment =
            Environment::of(variables.map(|(name, value)| (name.into(), value.into())).into_iter());
        environment.settings::<T>().map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_that_cannot_be_read_names_its_variable() {
        fn refused<T: DeserializeOwned>(name: &str, value: &str) -> String {
            read::<T>(name, value).err().unwrap_or_default()
        }
        for value in ["eighty", "65536", "", " 80", "８０"] {
            let expected = format!("PORT: a whole number from 0 to 65535 is expected, found {value:?}");
            assert_eq!(refused::<HttpSettings>("PORT", value), expected);
        }
        for value in ["", "127.0.0.1 ", "8503", "127.1", "[::1]", "127.0.0.1:8503", "no-such-host.invalid"] {
            let said = refused::<HttpSettings>("HOST", value);
            assert!(
                said.starts_with("HOST: an IP address") && said.ends_with(&format!("found {value:?}")),
                "{said}"
            );
        }
        for value in ["xml", "", "json "] {
            let expected = format!("LOG_FORMAT: json or pretty is expected, found {value:?}");
            assert_eq!(refused::<LogSettings>("LOG_FORMAT", value), expected);
        }
        let refused = refused::<DatabaseSettings>("MONGODB_TIMEOUT_MS", "5s");
        assert!(
            refused.contains("MONGODB_TIMEOUT_MS: a whole number") && refused.ends_with("found \"5s\""),
            "{refused}"
        );
    }

    #[test]
    fn names_of_hosts_and_any_case_of_words_are_taken() {
        let host = |value| read::<HttpSettings>("HOST", value).expect("a host").host;
        assert_eq!(host("localhost"), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(host("::"), IpAddr::from([0_u16; 8]));
        let format = |value| read::<LogSettings>("LOG_FORMAT", value).expect("a format").log_format;
        assert_eq!((format("JSON"), format("Pretty")), (LogFormat::Json, LogFormat::Pretty));
    }

    #[test]
    fn a_value_that_is_no_text_counts_only_where_it_is_a_setting() {
        use std::os::unix::ffi::OsStringExt as _;
        let refused = |name: &str| {
            let variable = (name.into(), OsString::from_vec(vec![b'a', 0xff]));
            let environment = Environment::of([variable].into_iter());
            let database = environment.settings::<DatabaseSettings>().err();
            database.or(environment.settings::<HttpSettings>().err()).map(|error| error.to_string())
        };
        assert_eq!(refused("LS_COLORS"), None);
        for ours in ["API_KEY", "mongodb_uri"] {
            let said = refused(ours).unwrap_or_default();
            assert!(said.starts_with(&format!("{ours}: text in UTF-8 is expected")), "{said}");
        }
    }
}
