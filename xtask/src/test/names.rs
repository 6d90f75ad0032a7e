//! The paths of the tests in a target, such as `module::name`, read from its sources.
//!
//! A filter of libtest is a part of such a path. The sources are read file by file, as `mod` declarations lead from one to
//! the next. What is only compiled with some feature is read too.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Item};

/// The paths of all tests in the target whose root is this file.
pub(super) fn in_target(root: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let folder = root.parent().unwrap_or(root).to_owned();
    in_file(root, &folder, &mut Vec::new(), &mut names)?;
    Ok(names)
}

/// Whether a run with this filter may run the test with this path. Tests with cases have paths of their own below it.
pub(super) fn may_match(path: &str, filter: &str) -> bool {
    let is_case = |(at, _)| path.ends_with(&filter[..at]) && at > 0;
    path.contains(filter) || filter.match_indices("::").any(is_case)
}

/// `folder` is where the files of the modules in there lie, `module` what leads to it.
fn in_file(file: &Path, folder: &Path, module: &mut Vec<String>, names: &mut Vec<String>) -> Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    // What is no Rust is for the compiler to explain.
    let Ok(source) = syn::parse_file(&text) else { return Ok(()) };
    in_items(&source.items, folder, module, names)
}

fn in_items(items: &[Item], folder: &Path, module: &mut Vec<String>, names: &mut Vec<String>) -> Result<()> {
    for item in items {
        match item {
            Item::Fn(item) if item.attrs.iter().any(is_of_test) => {
                names.push(path(module, &item.sig.ident.to_string()));
            }
            Item::Macro(item) if item.ident.is_none() => {
                let functions = functions(item.mac.tokens.clone());
                names.extend(functions.iter().map(|name| path(module, name)));
            }
            Item::Mod(item) => {
                let name = item.ident.to_string();
                let below = folder.join(&name);
                module.push(name);
                match &item.content {
                    Some((_, items)) => in_items(items, &below, module, names)?,
                    None => {
                        if let Some(file) = file_of(&below) {
                            in_file(&file, &below, module, names)?;
                        }
                    }
                }
                module.pop();
            }
            _ => {}
        }
    }
    Ok(())
}

fn path(module: &[String], name: &str) -> String {
    [module, &[name.to_owned()]].concat().join("::")
}

/// `folder.rs` or `folder/mod.rs`.
fn file_of(folder: &Path) -> Option<PathBuf> {
    [folder.with_extension("rs"), folder.join("mod.rs")].into_iter().find(|file| file.is_file())
}

/// `#[test]`, `#[tokio::test]`, `#[rstest]` and the like.
fn is_of_test(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident.to_string().ends_with("test"))
}

/// The functions in what a macro such as `proptest!` is given: each may be a test.
fn functions(tokens: TokenStream) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_function = false;
    for token in tokens {
        match token {
            TokenTree::Ident(ident) => {
                names.extend(is_function.then(|| ident.to_string()));
                is_function = ident == "fn";
            }
            TokenTree::Group(group) => names.extend(functions(group.stream())),
            _ => is_function = false,
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Scratch;

    fn names(files: &[(&str, &str)]) -> Vec<String> {
        let scratch = Scratch::new().unwrap();
        for (path, text) in files {
            let path = scratch.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        in_target(&scratch.path().join(files[0].0)).unwrap()
    }

    #[test]
    fn modules_lead_from_file_to_file() {
        let files = [
            ("src/lib.rs", "mod a;\nmod b;\n#[test]\nfn top() {}\nfn no_test() {}"),
            ("src/a.rs", "mod tests;\nmod inner { #[tokio::test(flavor = \"x\")] async fn one() {} }"),
            ("src/a/tests.rs", "#[rstest]\nfn two() {}"),
            ("src/b/mod.rs", "#[cfg(test)]\nmod tests { mod deep; }"),
            ("src/b/tests/deep.rs", "#[test] fn three() {}"),
            ("src/main.rs", "#[test] fn of_another_target() {}"),
        ];
        assert_eq!(names(&files), ["a::tests::two", "a::inner::one", "b::tests::deep::three", "top"]);
    }

    #[test]
    fn functions_in_macros_may_be_tests() {
        let text = "proptest! { #[test] fn shrinks(a in 0..9) { f(|| fn_x); } }\nmacro_rules! m { () => { fn x() {} } }";
        assert_eq!(names(&[("it/main.rs", text)]), ["shrinks"]);
    }

    #[test]
    fn a_filter_is_a_part_of_the_path_or_goes_on_to_a_case() {
        let path = "claim_waiting::a_task_wakes";
        for filter in [
            "claim_wai",
            "a_task_wakes",
            "waiting::a_t",
            "task_wakes::case_1",
            "claim_waiting::a_task_wakes::c",
        ] {
            assert!(may_match(path, filter), "{filter}");
        }
        for filter in ["claim::", "wakes_", "claim_waiting::b", "::case_1", "task::case_1"] {
            assert!(!may_match(path, filter), "{filter}");
        }
    }

    #[test]
    fn this_test_finds_itself() {
        let names = in_target(&crate::layout::root().join("xtask/src/main.rs")).unwrap();
        assert!(names.contains(&"test::names::tests::this_test_finds_itself".to_owned()), "{names:?}");
    }
}
