//! What one file declares, imports and names.

use std::collections::BTreeSet;

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree, Visibility};

/// A name with what leads to it.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) path: Vec<String>,
    pub(super) line: usize,
}

/// A name brought in by `use`.
#[derive(Debug, Clone)]
pub(super) struct Import {
    /// What it is called here; `*` for everything.
    pub(super) name: String,
    pub(super) from: Named,
    /// Others may import it from here.
    pub(super) is_door: bool,
}

/// What a file has, but for what is for tests only.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Modules in files of their own that are for tests only.
    pub(super) test_modules: Vec<String>,
    /// Names of items that it defines.
    pub(super) defined: BTreeSet<String>,
    pub(super) imports: Vec<Import>,
    /// Paths in its code of two names or more, and single names.
    pub(super) named: Vec<Named>,
}

impl Source {
    /// `None`: it is no Rust.
    pub(super) fn of(text: &str) -> Option<Self> {
        let file = syn::parse_file(text).ok()?;
        let mut source = Self::default();
        file.items.iter().for_each(|item| source.add(item));
        Some(source)
    }

    fn add(&mut self, item: &Item) {
        if attributes(item).iter().any(is_for_tests) {
            if let Item::Mod(module) = item {
                self.test_modules.push(module.ident.to_string());
            }
            return;
        }
        if let Some(name) = defined(item) {
            self.defined.insert(name);
        }
        match item {
            Item::Use(item) => {
                let is_door = !matches!(item.vis, Visibility::Inherited);
                self.add_use(&item.tree, &mut Vec::new(), is_door);
            }
            Item::Mod(module) => {
                // What stands in a module of the same file stands in this file.
                for item in module.content.iter().flat_map(|(_, items)| items) {
                    self.add(item);
                }
            }
            item => self.visit_item(item),
        }
    }

    fn add_use(&mut self, tree: &UseTree, before: &mut Vec<String>, is_door: bool) {
        let mut import = |name: String, last: Option<&syn::Ident>, line| {
            let mut path = before.clone();
            path.extend(last.filter(|last| *last != "self").map(ToString::to_string));
            self.imports.push(Import { name, from: Named { path, line }, is_door });
        };
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add_use(&path.tree, before, is_door);
                before.pop();
            }
            UseTree::Name(name) if name.ident == "self" => {
                let line = name.ident.span().start().line;
                import(before.last().cloned().unwrap_or_default(), None, line);
            }
            UseTree::Name(name) => {
                import(name.ident.to_string(), Some(&name.ident), name.ident.span().start().line);
            }
            UseTree::Rename(rename) => {
                import(rename.rename.to_string(), Some(&rename.ident), rename.ident.span().start().line);
            }
            UseTree::Glob(glob) => import("*".to_owned(), None, glob.star_token.spans[0].start().line),
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.add_use(tree, before, is_door));
            }
        }
    }

    /// The paths in what a macro is given, as far as they look like such.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let (mut path, mut line, mut colons) = (Vec::new(), 0, 0);
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.note(std::mem::take(&mut path), line);
                    }
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.note(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.add_tokens(group.stream());
                    }
                }
            }
        }
        self.note(path, line);
    }

    fn note(&mut self, path: Vec<String>, line: usize) {
        if !path.is_empty() {
            self.named.push(Named { path, line });
        }
    }
}

impl<'ast> Visit<'ast> for Source {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.segments.first().map_or(0, |first| first.ident.span().start().line);
        self.note(path.segments.iter().map(|segment| segment.ident.to_string()).collect(), line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.add_tokens(mac.tokens.clone());
        visit::visit_macro(self, mac);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.add_tokens(list.tokens.clone());
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            // Within a function.
            Item::Use(item) => self.add_use(&item.tree, &mut Vec::new(), false),
            item => visit::visit_item(self, item),
        }
    }

    fn visit_impl_item(&mut self, item: &'ast syn::ImplItem) {
        let attributes = match item {
            syn::ImplItem::Fn(item) => &item.attrs[..],
            syn::ImplItem::Const(item) => &item.attrs[..],
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_impl_item(self, item);
        }
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn defined(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}
