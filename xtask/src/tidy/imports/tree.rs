//! The modules of a crate, and in which file a path of it ends.

use std::collections::{BTreeMap, BTreeSet};

use super::super::file::File;
use super::source::{Named, Source};

/// The imports of each file: for each file that it names something of, the line where it first does.
pub(super) type Imports = BTreeMap<String, BTreeMap<String, usize>>;

/// A module's place in its crate: the names that lead to it.
type Place = Vec<String>;

/// The modules of a crate that are files, without those that are for tests only.
pub(super) struct Tree<'a> {
    modules: BTreeMap<Place, Module<'a>>,
}

struct Module<'a> {
    path: &'a str,
    source: Source,
}

/// How many doors a name may come through.
const MAX_DOORS: usize = 8;

impl<'a> Tree<'a> {
    pub(super) fn of(root: &str, files: impl Iterator<Item = &'a File>) -> Self {
        let mut modules = BTreeMap::new();
        for file in files {
            let below = file.path.strip_prefix(root).unwrap_or(&file.path).trim_end_matches(".rs");
            let mut place: Place = below.split('/').map(str::to_owned).collect();
            if place.last().is_some_and(|last| last == "mod") || below == "lib" {
                place.pop();
            }
            if let Some(source) = Source::of(&file.text) {
                modules.insert(place, Module { path: &file.path, source });
            }
        }
        // A program beside a library is a crate of its own, which has no part in the library's modules.
        if !modules.contains_key(&Place::new())
            && let Some(main) = modules.remove(&vec!["main".to_owned()])
        {
            modules.insert(Place::new(), main);
        }
        let for_tests: BTreeSet<Place> = modules
            .iter()
            .flat_map(|(place, module)| {
                module.source.test_modules.iter().map(|name| [place.clone(), vec![name.clone()]].concat())
            })
            .collect();
        modules.retain(|place, _| !for_tests.iter().any(|test| place.starts_with(test)));
        Self { modules }
    }

    /// Which file names something of which other.
    pub(super) fn imports(&self) -> Imports {
        let mut imports = Imports::new();
        for (place, module) in &self.modules {
            let Source { imports: brought, named, .. } = &module.source;
            let firsts: BTreeSet<_> = named.iter().map(|name| &name.path[0]).collect();
            let brought = brought.iter().filter(|import| !import.is_door || firsts.contains(&import.name));
            let used = brought.map(|import| &import.from).chain(named.iter().filter(|it| it.path.len() > 1));
            for Named { path, line } in used {
                let Some(target) = self.file_of(place, path, 0).filter(|target| *target != module.path)
                else {
                    continue;
                };
                let targets = imports.entry(module.path.to_owned()).or_default();
                let first = targets.entry(target.to_owned()).or_insert(*line);
                *first = (*first).min(*line);
            }
        }
        imports
    }

    /// The file that defines what a path leads to from a module. `None`: it leads out of the crate, or to a module.
    fn file_of(&self, from: &Place, path: &[String], doors: usize) -> Option<&'a str> {
        if doors > MAX_DOORS {
            return None;
        }
        let (mut place, mut rest) = self.begin(from, path, doors)?;
        loop {
            let module = self.modules.get(&place)?;
            let (next, behind) = rest.split_first()?;
            let child = [place.clone(), vec![next.clone()]].concat();
            if self.modules.contains_key(&child) {
                (place, rest) = (child, behind.to_vec());
                continue;
            }
            if module.source.defined.contains(next) {
                return Some(module.path);
            }
            let mut imports = module.source.imports.iter();
            if let Some(import) = imports.find(|import| import.name == *next) {
                let path = [import.from.path.clone(), behind.to_vec()].concat();
                return self.file_of(&place, &path, doors + 1);
            }
            let all = module.source.imports.iter().filter(|import| import.name == "*");
            let mut behind_all = all.filter_map(|import| {
                let path = [import.from.path.clone(), rest.clone()].concat();
                self.file_of(&place, &path, doors + 1)
            });
            // What no file defines is made by a macro, in the module where it is looked for.
            return behind_all.next().or((place != *from || doors > 0).then_some(module.path));
        }
    }

    /// The module in which a path begins, and what is left of the path.
    fn begin(&self, from: &Place, path: &[String], doors: usize) -> Option<(Place, Place)> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => Some((Place::new(), rest.to_vec())),
            "self" => Some((from.clone(), rest.to_vec())),
            "super" => {
                let mut place = from.clone();
                place.pop()?;
                let above = rest.iter().take_while(|name| *name == "super").count();
                place.truncate(place.len().checked_sub(above)?);
                Some((place, rest[above..].to_vec()))
            }
            name => {
                let child = [from.clone(), vec![name.to_owned()]].concat();
                if self.modules.contains_key(&child) {
                    return Some((child, rest.to_vec()));
                }
                let module = self.modules.get(from)?;
                let import = module.source.imports.iter().find(|import| import.name == *name)?;
                // The name of a crate is none of ours.
                if import.from.path.first().is_some_and(|first| first == name) || doors > MAX_DOORS {
                    return None;
                }
                let path = [import.from.path.clone(), rest.to_vec()].concat();
                self.begin(from, &path, doors + 1)
            }
        }
    }
}
