//! Retention classes on disk: keys begin with the number of a class, and a file says which class has which number.
//!
//! Number 0 is the default class. Another class gets a number when a store is first opened with it, and keeps it for
//! good. Numbers are of this directory: a snapshot carries names.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use tricord_model::{Retention, RetentionClass, Tenant};

use super::Error;

/// Where the numbers stand.
const FILE: &str = "CLASSES";

/// A class with its number.
#[derive(Debug)]
struct Class {
    name: String,
    /// What settings say; `None` where they say nothing, and nothing may be stored.
    of: Option<RetentionClass>,
    /// Generations of windows that were dropped since they were past.
    dropped: AtomicU64,
}

/// The classes of a store.
#[derive(Debug)]
pub(crate) struct Classes {
    by_number: BTreeMap<u8, Class>,
    retention: Retention,
}

impl Classes {
    /// Reads the numbers in a directory, and gives some to classes that have none. `in_use` answers whether there is data
    /// of any class but the default one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the file is damaged, or missing though numbers are in use; the disk's failure.
    pub(crate) fn open(
        dir: &Path,
        retention: &Retention,
        in_use: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let mut names = match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes).ok_or_else(|| {
                let path = path.display();
                Error::corrupt(format!("{path} does not say which retention class has which number"))
            })?,
            // Numbers given anew could be those of other classes, and data would be dropped too early.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && in_use()? => {
                return Err(Error::corrupt(format!(
                    "{} is missing, and there is data of other retention classes than the default one: restore the file, \
                     or give this node a new data directory so that its shards are copied again",
                    path.display()
                )));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(Error::io("read", &path, &error)),
        };
        let known = names.len();
        for class in retention.classes().iter().skip(1) {
            if names.values().any(|name| *name == class.name) {
                continue;
            }
            let number = names.keys().last().copied().unwrap_or(0).checked_add(1);
            let number =
                number.ok_or_else(|| Error::Invalid("there were too many retention classes".to_owned()))?;
            names.insert(number, class.name.clone());
        }
        if names.len() > known {
            write(dir, &path, &names)?;
        }
        names.insert(0, RetentionClass::DEFAULT.to_owned());
        let class = |(number, name): (u8, String)| {
            let of = retention.classes().iter().find(|class| class.name == name).cloned();
            (number, Class { name, of, dropped: AtomicU64::new(0) })
        };
        Ok(Self { by_number: names.into_iter().map(class).collect(), retention: retention.clone() })
    }

    /// The number of a tenant's class.
    pub(crate) fn of(&self, tenant: &Tenant) -> u8 {
        self.number(&self.retention.of(tenant).name).unwrap_or(0)
    }

    /// The number of a class that settings have.
    pub(crate) fn number(&self, name: &str) -> Option<u8> {
        let mut classes = self.by_number.iter();
        classes.find(|(_, class)| class.name == name && class.of.is_some()).map(|(number, _)| *number)
    }

    /// The name of a class.
    pub(crate) fn name(&self, number: u8) -> Option<&str> {
        self.by_number.get(&number).map(|class| class.name.as_str())
    }

    /// All numbers that were ever given, ascending.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u8> + '_ {
        self.by_number.keys().copied()
    }

    /// How long a class keeps data, in milliseconds; `None` keeps everything.
    pub(crate) fn keep_ms(&self, number: u8) -> Option<i64> {
        self.by_number.get(&number)?.of.as_ref()?.keep_ms
    }

    /// Whether the first class keeps data at least as long as the second.
    pub(crate) fn keeps_as_long(&self, one: u8, other: u8) -> bool {
        match (self.keep_ms(one), self.keep_ms(other)) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(one), Some(other)) => one >= other,
        }
    }

    /// Refuses a class of which there is data, but that settings do not have.
    pub(crate) fn check(&self, number: u8) -> Result<(), Error> {
        match self.by_number.get(&number) {
            Some(Class { of: Some(_), .. }) => Ok(()),
            Some(Class { name, .. }) => Err(Error::Invalid(format!(
                "retention class {name:?} has data on this node, but retention_classes lacks it: put it back; it can \
                 go when no tenant is in it and its data is past"
            ))),
            None => Err(Error::corrupt(format!(
                "there is data of retention class number {number}, but {FILE} does not name it"
            ))),
        }
    }

    /// Counts dropped generations.
    pub(crate) fn dropped(&self, number: u8, count: u64) {
        if let Some(class) = self.by_number.get(&number) {
            class.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Generations of a class that were dropped since the start.
    pub(crate) fn dropped_of(&self, number: u8) -> u64 {
        self.by_number.get(&number).map_or(0, |class| class.dropped.load(Ordering::Relaxed))
    }
}

/// Lines `number=name`, then `crc32c=` of them.
fn encode(names: &BTreeMap<u8, String>) -> String {
    let lines: String = names.iter().map(|(number, name)| format!("{number}={name}\n")).collect();
    format!("{lines}crc32c={:08x}\n", crc32c::crc32c(lines.as_bytes()))
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<u8, String>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let pair = |line: &str| {
        let (number, name) = line.split_once('=')?;
        Some((number.parse::<u8>().ok().filter(|number| *number > 0)?, name.to_owned()))
    };
    let names = text.lines().filter(|line| !line.starts_with("crc32c=")).map(pair).collect::<Option<_>>()?;
    // Byte by byte as it was written, so that no damage is overlooked.
    (encode(&names) == text).then_some(names)
}

fn write(dir: &Path, path: &Path, names: &BTreeMap<u8, String>) -> Result<(), Error> {
    let staged = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        std::fs::write(&staged, encode(names))?;
        std::fs::File::open(&staged)?.sync_all()?;
        std::fs::rename(&staged, path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|error| Error::io("write", path, &error))
}

#[cfg(test)]
mod tests {
    use tricord_model::RetentionTexts;

    use super::*;

    fn retention(classes: &[(&str, &str)]) -> Retention {
        let classes = classes.iter().map(|(name, keep)| ((*name).to_owned(), (*keep).to_owned())).collect();
        let named = "long".to_owned();
        let texts = RetentionTexts { classes, named, ..RetentionTexts::default() };
        Retention::read("30d", &texts).unwrap()
    }

    #[test]
    fn a_class_keeps_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let open =
            |classes: &[(&str, &str)]| Classes::open(dir.path(), &retention(classes), || Ok(false)).unwrap();
        let first = open(&[("long", "400d"), ("short", "3d")]);
        assert_eq!(
            (first.number("default"), first.number("long"), first.number("short")),
            (Some(0), Some(1), Some(2))
        );
        assert_eq!((first.of(&Tenant::default()), first.of(&Tenant::new("a").unwrap())), (0, 1));
        assert!(first.keeps_as_long(1, 0) && first.keeps_as_long(0, 2) && !first.keeps_as_long(2, 1));
        let second = open(&[("all", "0"), ("long", "1y")]);
        assert_eq!(
            (second.number("all"), second.number("long"), second.number("short")),
            (Some(3), Some(1), None)
        );
        assert!(second.keeps_as_long(3, 1) && !second.keeps_as_long(1, 3));
        assert_eq!((second.name(2), second.numbers().collect::<Vec<_>>()), (Some("short"), vec![0, 1, 2, 3]));
        assert!(second.check(1).is_ok());
        assert!(matches!(second.check(2), Err(Error::Invalid(text)) if text.contains("\"short\"")));
        assert!(matches!(second.check(9), Err(Error::Corrupt(_))));
    }

    #[test]
    fn any_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let retention = retention(&[("long", "400d"), ("short", "3d")]);
        let open = || Classes::open(dir.path(), &retention, || Ok(false));
        open().unwrap();
        let path = dir.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            for damaged in [&damaged[..], &bytes[..at]] {
                std::fs::write(&path, damaged).unwrap();
                assert!(matches!(open(), Err(Error::Corrupt(_))), "at {at}");
            }
        }
    }
}
