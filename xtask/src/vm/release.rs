//! Kernel releases: their names in the archives, which of them was asked for, which is the newest.

/// A kernel release as `uname -r` prints it, with its version numbers for comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    name: String,
    numbers: Vec<u64>,
}

impl Release {
    /// Every release has a name; what is in it decides how it compares.
    pub(crate) fn new(name: &str) -> Self {
        let numbers = name
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|digits| digits.parse().ok())
            .collect();
        Self { name: name.into(), numbers }
    }

    /// The release of a kernel image package, unless it is a special build (cloud, real time, debug, unsigned).
    pub(crate) fn of_package(package: &str, flavour: &str) -> Option<Self> {
        let name = package.strip_prefix("linux-image-")?;
        let version = name.strip_suffix(flavour)?.strip_suffix('-')?;
        let special = ["cloud", "rt", "dbg", "unsigned"];
        let plain = version.starts_with(|c: char| c.is_ascii_digit())
            && !version.split('-').any(|word| special.contains(&word));
        plain.then(|| Self::new(name))
    }

    /// As `uname -r` prints it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The first version number: 6 of 6.12.
    pub(crate) fn major(&self) -> u64 {
        self.numbers.first().copied().unwrap_or_default()
    }

    /// Whether this is the version asked for: `6.1` is any 6.1.x, but not 6.12.
    pub(crate) fn matches(&self, wanted: &str) -> bool {
        let wanted = wanted.trim_end_matches('.');
        self.name
            .strip_prefix(wanted)
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    }
}

/// The newest of the releases that match, or of all if none is asked for.
pub(crate) fn newest(
    releases: impl IntoIterator<Item = Release>,
    wanted: Option<&str>,
) -> Option<Release> {
    releases
        .into_iter()
        .filter(|release| wanted.is_none_or(|wanted| release.matches(wanted)))
        .max_by(|a, b| a.numbers.cmp(&b.numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_special_builds_are_left_out() {
        let of = |package| Release::of_package(package, "amd64").map(|release| release.name);
        assert_eq!(of("linux-image-6.1.0-37-amd64").unwrap(), "6.1.0-37-amd64");
        assert_eq!(of("linux-image-6.12.22+bpo-amd64").unwrap(), "6.12.22+bpo-amd64");
        for package in [
            "linux-image-amd64",
            "linux-image-6.1.0-37-cloud-amd64",
            "linux-image-6.1.0-37-rt-amd64",
            "linux-image-6.1.0-37-amd64-dbg",
            "linux-image-6.1.0-37-amd64-unsigned",
            "linux-image-6.1.0-37-686",
            "linux-headers-6.1.0-37-amd64",
        ] {
            assert_eq!(of(package), None, "{package}");
        }
        let ubuntu = Release::of_package("linux-image-6.8.0-45-generic", "generic").unwrap();
        assert_eq!(ubuntu.name(), "6.8.0-45-generic");
        assert_eq!(Release::of_package("linux-image-unsigned-6.8.0-45-generic", "generic"), None);
    }

    #[test]
    fn a_version_matches_whole_numbers_only() {
        let release = Release::new("6.1.0-37-amd64");
        for wanted in ["6", "6.1", "6.1.", "6.1.0", "6.1.0-37", "6.1.0-37-amd64"] {
            assert!(release.matches(wanted), "{wanted}");
        }
        for wanted in ["6.12", "6.1.0-3", "6.10", "1", "7"] {
            assert!(!release.matches(wanted), "{wanted}");
        }
        assert!(!Release::new("6.12.22+bpo-amd64").matches("6.1"));
    }

    #[test]
    fn the_newest_is_compared_by_number() {
        let all = ["6.1.0-9-amd64", "6.1.0-37-amd64", "6.12.9+bpo-amd64", "6.12.57+deb13-amd64"]
            .map(Release::new);
        let pick = |wanted| newest(all.clone(), wanted).map(|release| release.name);
        assert_eq!(pick(Some("6.1")).unwrap(), "6.1.0-37-amd64");
        assert_eq!(pick(Some("6.12")).unwrap(), "6.12.57+deb13-amd64");
        assert_eq!(pick(None).unwrap(), "6.12.57+deb13-amd64");
        assert_eq!(pick(Some("5")), None);
        assert_eq!(all[0].major(), 6);
    }
}
