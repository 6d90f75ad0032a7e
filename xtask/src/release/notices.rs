//! `THIRD-PARTY-NOTICES.txt`: whose work the program holds, and under which terms.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

/// A package that the program is linked from.
pub(super) struct Package {
    /// With the version.
    pub(super) name: String,
    /// As an SPDX expression.
    pub(super) licence: Option<String>,
    pub(super) repository: Option<String>,
    pub(super) authors: Vec<String>,
    /// The licence texts in the package.
    pub(super) texts: Vec<String>,
}

/// A text, and who has it.
struct Text<'a> {
    text: String,
    packages: Vec<&'a str>,
}

/// What the program holds that is no package, or lies packed in one.
const BESIDES: &str = "\
The program also holds parts of Rust's standard library (MIT OR Apache-2.0, copyright the Rust Project Developers) and,
for the page of its API, Swagger UI (Apache-2.0, copyright 2020-2021 SmartBear Software Inc.). Their terms are in
LICENSE-MIT and LICENSE-APACHE beside this file.";

const RULE: &str = "--------------------------------------------------------------------------------";

/// The whole file for the program `name`. An error when nothing says what a package is under.
pub(super) fn render(name: &str, packages: &[Package]) -> Result<String> {
    let texts = shared_texts(packages);
    let mut page = format!(
        "Third-party notices of {name}\n\nThe program is linked from these packages. Each is under the licence named \
         with it; the numbers are those of the\ntexts that follow.\n\n{BESIDES}\n"
    );
    for package in packages {
        let _ = write!(page, "\n{}\n", package.name);
        let described =
            [package.licence.clone(), package.repository.clone(), Some(terms(package, packages, &texts)?)];
        for line in described.into_iter().flatten() {
            let _ = writeln!(page, "    {line}");
        }
    }
    for (index, Text { text, packages }) in texts.iter().enumerate() {
        let _ = write!(page, "\n{RULE}\nText {} of {}\n{RULE}\n\n{text}\n", index + 1, packages.join(", "));
    }
    Ok(page)
}

/// Each text once, in the order in which packages bring them.
fn shared_texts(packages: &[Package]) -> Vec<Text<'_>> {
    let mut shared: Vec<Text<'_>> = Vec::new();
    for package in packages {
        for text in package.texts.iter().map(|text| plain(text)) {
            match shared.iter_mut().find(|known| known.text == text) {
                // It may lie in the package twice.
                Some(known) if known.packages.contains(&package.name.as_str()) => {}
                Some(known) => known.packages.push(&package.name),
                None => shared.push(Text { text, packages: vec![&package.name] }),
            }
        }
    }
    shared
}

/// Without what nobody sees: ends of lines differ between packages, and their texts do not.
fn plain(text: &str) -> String {
    let lines: Vec<_> = text.trim_start_matches('\u{feff}').lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Where the terms of a package are to be read.
fn terms(package: &Package, packages: &[Package], texts: &[Text<'_>]) -> Result<String> {
    let numbers = |of: &Package| {
        let have = texts.iter().enumerate().filter(|(_, text)| text.packages.contains(&of.name.as_str()));
        have.map(|(index, _)| (index + 1).to_string()).collect::<Vec<_>>().join(", ")
    };
    if !package.texts.is_empty() {
        return Ok(format!("texts: {}", numbers(package)));
    }
    ensure!(
        package.licence.is_some(),
        "{} has neither a licence expression nor a licence file; find out what it is under, or do without it",
        package.name
    );
    // Packages of one repository often have their licence in its root only, and then just one of them carries it.
    let is_sibling = |other: &&Package| {
        !other.texts.is_empty()
            && other.repository.is_some()
            && (&other.repository, &other.licence) == (&package.repository, &package.licence)
    };
    if let Some(other) = packages.iter().find(is_sibling) {
        let (name, numbers) = (&other.name, numbers(other));
        return Ok(format!(
            "texts: {numbers}, from {name} of the same repository; this package has none of its own"
        ));
    }
    let mut said = "the package has no text of its own".to_owned();
    let beside: Vec<_> = beside(package.licence.as_deref().unwrap_or_default()).collect();
    if !beside.is_empty() {
        let _ = write!(said, "; the terms are in {} beside this file", beside.join(" and in "));
    }
    if !package.authors.is_empty() {
        let _ = write!(said, "; its authors: {}", package.authors.join(", "));
    }
    Ok(said)
}

/// The files of the archive that hold terms this expression names: our own licences are among the usual ones.
fn beside(licence: &str) -> impl Iterator<Item = &'static str> {
    let is_part = |character: char| character.is_alphanumeric() || ".-+".contains(character);
    let names = move |wanted: &str| licence.split(|character| !is_part(character)).any(|name| name == wanted);
    let ours = [("MIT", "LICENSE-MIT"), ("Apache-2.0", "LICENSE-APACHE")];
    ours.into_iter().filter(move |(name, _)| names(name)).map(|(_, file)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, licence: Option<&str>, texts: &[&str]) -> Package {
        Package {
            name: name.into(),
            licence: licence.map(Into::into),
            repository: None,
            authors: vec!["Somebody".into()],
            texts: texts.iter().map(|&text| text.into()).collect(),
        }
    }

    #[test]
    fn a_text_that_several_packages_have_appears_once() {
        let packages = [
            package("a 1", Some("MIT"), &["Be nice.\n", "Have fun.\n"]),
            package("b 2", Some("MIT"), &["\u{feff}Be nice.  \r\n\r\n", "Be nice."]),
        ];
        let page = render("server", &packages).unwrap();
        assert_eq!(page.matches("Be nice.").count(), 1);
        assert!(page.contains("Text 1 of a 1, b 2\n"));
        assert!(page.contains("Text 2 of a 1\n"));
        assert!(page.contains("\na 1\n    MIT\n    texts: 1, 2\n"));
        assert!(page.contains("\nb 2\n    MIT\n    texts: 1\n"));
    }

    #[test]
    fn a_package_without_a_text_says_where_the_terms_are() {
        let page = render("server", &[package("a 1", Some("MIT OR Apache-2.0"), &[])]).unwrap();
        assert!(page.contains("the terms are in LICENSE-MIT and in LICENSE-APACHE beside this file"));
        assert!(page.contains("its authors: Somebody"));
        let page = render("server", &[package("a 1", Some("MIT-0"), &[])]).unwrap();
        assert!(page.contains("    MIT-0\n    the package has no text of its own; its authors"));
    }

    #[test]
    fn a_package_without_a_text_takes_that_of_another_from_its_repository() {
        let mut packages = [package("a 1", Some("ISC"), &["Be nice."]), package("b 2", Some("ISC"), &[])];
        for package in &mut packages {
            package.repository = Some("https://example.org/ab".into());
        }
        assert!(render("server", &packages).unwrap().contains("texts: 1, from a 1 of the same repository"));
        packages[1].licence = Some("Zlib".into());
        assert!(!render("server", &packages).unwrap().contains("same repository"));
    }

    #[test]
    fn a_package_that_says_nothing_is_an_error() {
        let error = render("server", &[package("a 1", None, &[])]).unwrap_err();
        assert!(error.to_string().starts_with("a 1 has neither a licence expression nor a licence file"));
        assert!(render("server", &[package("a 1", None, &["Be nice."])]).is_ok());
    }
}
