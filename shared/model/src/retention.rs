//! How long data is kept: classes by name, and which tenant is in which.

use std::collections::BTreeMap;

use crate::Tenant;

/// A way to keep data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionClass {
    /// What settings call it; [`RetentionClass::DEFAULT`] for the one of tenants that are in no other.
    pub name: String,
    /// For how long, in milliseconds; `None` keeps everything.
    pub keep_ms: Option<i64>,
}

impl RetentionClass {
    /// The name of the class that is always there.
    pub const DEFAULT: &'static str = "default";

    /// Data before this is past, in milliseconds; `i64::MIN` where everything is kept.
    #[must_use]
    pub fn horizon_ms(&self, now_ms: i64) -> i64 {
        self.keep_ms.map_or(i64::MIN, |keep_ms| now_ms.saturating_sub(keep_ms))
    }
}

/// What settings say of classes, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionTexts {
    /// How long each class keeps data, beside the default one.
    pub classes: BTreeMap<String, String>,
    /// The class of the tenants `default` and `tricord`; empty for the default one.
    pub unnamed: String,
    /// The class of every tenant that names itself; empty for the default one.
    pub named: String,
    /// The classes of single tenants; empty for the default one.
    pub tenants: BTreeMap<String, String>,
}

/// How long the data of every tenant is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// The default one first.
    classes: Vec<RetentionClass>,
    unnamed: usize,
    named: usize,
    tenants: BTreeMap<String, usize>,
}

/// More classes than this are of no use: each has files of its own.
const MAX_CLASSES: usize = 16;
const MAX_NAME_BYTES: usize = 32;

impl Retention {
    /// One class alone, in milliseconds; `None` keeps everything.
    #[must_use]
    pub fn keeping(keep_ms: Option<i64>) -> Self {
        let classes = vec![RetentionClass { name: RetentionClass::DEFAULT.to_owned(), keep_ms }];
        Self { classes, unnamed: 0, named: 0, tenants: BTreeMap::new() }
    }

    /// Reads settings: how long the default class keeps data, and what is said of others.
    ///
    /// # Errors
    /// The setting that makes no sense.
    pub fn read(retention: &str, texts: &RetentionTexts) -> Result<Self, String> {
        let mut read = Self::keeping(parse_retention(retention).map_err(|why| format!("retention {why}"))?);
        if texts.classes.len() > MAX_CLASSES {
            let count = texts.classes.len();
            return Err(format!("retention_classes has {count} classes, {MAX_CLASSES} are allowed"));
        }
        for (name, text) in &texts.classes {
            let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_valid) {
                return Err(format!(
                    "retention class {name:?}: use 1 to {MAX_NAME_BYTES} letters, digits, - or _"
                ));
            }
            if name == RetentionClass::DEFAULT {
                return Err("retention class \"default\" is what the setting retention says".to_owned());
            }
            let keep_ms =
                parse_retention(text).map_err(|why| format!("retention class {name:?} keeps {why}"))?;
            read.classes.push(RetentionClass { name: name.clone(), keep_ms });
        }
        let place = |name: &str, of: &str| match name {
            "" => Ok(0),
            name => read.classes.iter().position(|class| class.name == name).ok_or_else(|| {
                let known: Vec<&str> = read.classes.iter().map(|class| class.name.as_str()).collect();
                format!(
                    "{of} has retention class {name:?}, which retention_classes lacks: there are {}",
                    known.join(", ")
                )
            }),
        };
        let unnamed = place(&texts.unnamed, "limits.unnamed")?;
        let named = place(&texts.named, "limits.named")?;
        let mut tenants = BTreeMap::new();
        for (tenant, name) in &texts.tenants {
            tenants.insert(tenant.clone(), place(name, &format!("tenant {tenant}"))?);
        }
        Ok(Self { unnamed, named, tenants, ..read })
    }

    /// The class of a tenant.
    #[must_use]
    pub fn of(&self, tenant: &Tenant) -> &RetentionClass {
        let is_unnamed = matches!(tenant.as_str(), Tenant::DEFAULT | Tenant::OWN);
        let shared = if is_unnamed { self.unnamed } else { self.named };
        let place = self.tenants.get(tenant.as_str()).copied().unwrap_or(shared);
        self.classes.get(place).unwrap_or(&self.classes[0])
    }

    /// All classes, the default one first.
    #[must_use]
    pub fn classes(&self) -> &[RetentionClass] {
        &self.classes
    }
}

/// Milliseconds from `30d`, `90m`; `None` from `0`, which keeps everything.
///
/// # Errors
/// Says what is wrong with the text, which it begins with.
pub fn parse_retention(text: &str) -> Result<Option<i64>, String> {
    let text = text.trim();
    if text == "0" {
        return Ok(None);
    }
    let invalid = || format!("{text:?} is not a duration: write a number and one of s, m, h, d, w, y, or 0");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().map_err(|_| invalid())?;
    let unit_ms: i64 = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        "y" => 365 * 86_400_000,
        _ => return Err(invalid()),
    };
    let ms = number.checked_mul(unit_ms).ok_or_else(invalid)?;
    Ok((ms > 0).then_some(ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts() -> RetentionTexts {
        let pairs = |list: &[(&str, &str)]| {
            list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        RetentionTexts {
            classes: pairs(&[("long", "400d"), ("short", "3d"), ("all", "0")]),
            unnamed: "long".to_owned(),
            named: "short".to_owned(),
            tenants: pairs(&[("audit", "all"), ("shop", ""), ("test", "default")]),
        }
    }

    #[test]
    fn durations_are_read() {
        let of = |text: &str| parse_retention(text).ok();
        assert_eq!(of("30d"), Some(Some(30 * 86_400_000)));
        assert_eq!((of("0"), of("0d"), of("90m")), (Some(None), Some(None), Some(Some(5_400_000))));
        for wrong in ["", "d", "30", "1.5d", "-1d", "99999999999999999y", "3 d"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn every_tenant_has_a_class() {
        let retention = Retention::read("30d", &texts()).unwrap();
        for (tenant, name) in [
            ("default", "long"),
            ("tricord", "long"),
            ("anybody", "short"),
            ("audit", "all"),
            ("shop", "default"),
            ("test", "default"),
        ] {
            assert_eq!(retention.of(&Tenant::new(tenant).unwrap()).name, name, "{tenant}");
        }
        let horizon = |tenant: &str| retention.of(&Tenant::new(tenant).unwrap()).horizon_ms(0);
        assert_eq!((horizon("anybody"), horizon("audit")), (-3 * 86_400_000, i64::MIN));
        assert_eq!(retention.classes().len(), 4);
    }

    #[test]
    fn mistakes_are_named() {
        let with = |change: &dyn Fn(&mut RetentionTexts)| {
            let mut texts = texts();
            change(&mut texts);
            Retention::read("30d", &texts).unwrap_err()
        };
        let class = |texts: &mut RetentionTexts, name: &str, keep: &str| {
            texts.classes.insert(name.to_owned(), keep.to_owned());
        };
        assert!(Retention::read("soon", &texts()).unwrap_err().starts_with("retention \"soon\""));
        for (text, change) in [
            ("short", &|texts| drop(texts.classes.remove("short"))),
            ("\"soon\"", &|texts| class(texts, "x", "soon")),
            ("what the setting retention says", &|texts| class(texts, "default", "1d")),
            ("letters", &|texts| class(texts, "a b", "1d")),
            ("16 are allowed", &|texts| (0..20).for_each(|n| class(texts, &format!("c{n}"), "1d"))),
            ("tenant shop", &|texts| drop(texts.tenants.insert("shop".into(), "nothing".into()))),
        ] as [(&str, &dyn Fn(&mut RetentionTexts)); 6]
        {
            let error = with(change);
            assert!(error.contains(text), "{error}");
        }
    }
}
