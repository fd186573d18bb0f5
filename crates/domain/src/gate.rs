//! What a request's own words decide before anybody's credential is looked at: where it comes from, which
//! organisation it is for, what its answer must carry. Texts in, yes or no out.

/// The canvas's own addresses during its development; they stay allowed whatever is configured.
pub const LOCAL_CANVAS: [&str; 2] = ["http://localhost:3000", "http://localhost:3001"];

/// What a request says about where it comes from. Anybody can write these headers: they prove nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whence<'a> {
    /// `Host`
    pub host: Option<&'a str>,
    /// `Origin`
    pub origin: Option<&'a str>,
    /// `Referer`
    pub referer: Option<&'a str>,
}

impl Whence<'_> {
    /// Whether the page that asks was served under the host that is asked.
    #[must_use]
    pub fn same_origin(self) -> bool {
        let Some(host) = self.host.filter(|host| !host.is_empty()) else { return false };
        ["http://", "https://"].into_iter().any(|scheme| {
            let of_host = |text: &str| text.strip_prefix(scheme)?.strip_prefix(host).map(str::len);
            let below = |text: &str| {
                let rest = text.strip_prefix(scheme).and_then(|text| text.strip_prefix(host));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            self.referer.is_some_and(below) || self.origin.and_then(of_host) == Some(0)
        })
    }

    /// Whether the page that asks is one of the listed ones. An empty origin never is.
    #[must_use]
    pub fn listed(self, origins: &[String]) -> bool {
        self.origin.filter(|origin| !origin.is_empty()).is_some_and(|origin| {
            LOCAL_CANVAS.contains(&origin) || origins.iter().any(|listed| listed == origin)
        })
    }
}

/// Paths that answer whatever organisation the request is for. Exact: what is below them is not among them.
const EVERYBODYS: [&str; 4] = ["/health", "/metrics", "/registry/register", "/registry/heartbeat"];

/// Whether a request is for this organisation: by its path, by its tag, or by the tag that a router of the
/// provider left.
#[must_use]
pub fn is_for(organisation: &str, path: &str, tag: Option<&str>, replayed: Option<&str>) -> bool {
    EVERYBODYS.contains(&path)
        || path.starts_with("/cp/")
        || tag == Some(organisation)
        || replayed.and_then(replay_state) == Some(organisation)
}

/// The `state` segment of a `;`-separated list.
#[must_use]
pub fn replay_state(list: &str) -> Option<&str> {
    let mut segments = list.split(';').map(str::trim);
    segments.find_map(|segment| segment.strip_prefix("state=")).filter(|state| !state.is_empty())
}

/// Paths of a control plane that pages of this organisation need: whole folders, and two names with what is below them.
const OF_CONTROL_PLANE: [&str; 5] =
    ["/cp/auth/", "/cp/orgs", "/cp/billing/", "/cp/templates", "/cp/legal/"];

/// Whether a path of a control plane is passed on to it. A name ends where its segment ends, and a path that could mean
/// another one to whoever reads it next is none of them.
#[must_use]
pub fn is_passed_on(path: &str) -> bool {
    let hidden = path.to_ascii_lowercase();
    let plain = !["%2e", "%2f", "%5c", "%00"].iter().any(|it| hidden.contains(it));
    let straight = path.split('/').all(|part| part != "." && part != "..");
    plain
        && straight
        && !path.contains(['\\', '?', '#'])
        && OF_CONTROL_PLANE.iter().any(|allowed| match path.strip_prefix(allowed) {
            Some(rest) => allowed.ends_with('/') || rest.is_empty() || rest.starts_with('/'),
            None => false,
        })
}

/// Roots of paths that answer programs. Nothing they answer is ever to be run by a browser.
const PROGRAMS: [&str; 16] = [
    "workspaces",
    "registry",
    "health",
    "admin",
    "metrics",
    "settings",
    "bundles",
    "org",
    "orgs",
    "templates",
    "plugins",
    "webhooks",
    "channels",
    "ws",
    "events",
    "approvals",
];

/// Whether a path answers programs; a page, otherwise. By its whole first segment.
#[must_use]
pub fn answers_programs(path: &str) -> bool {
    let first = path.strip_prefix('/').and_then(|rest| rest.split('/').next());
    first.is_some_and(|first| PROGRAMS.contains(&first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referer(text: &str) -> bool {
        Whence { host: Some("acme.app"), referer: Some(text), origin: None }.same_origin()
    }

    fn origin(text: &str) -> bool {
        Whence { host: Some("acme.app"), referer: None, origin: Some(text) }.same_origin()
    }

    #[test]
    fn cb_11_only_the_very_host_is_the_same_origin() {
        for scheme in ["http", "https"] {
            assert!(referer(&format!("{scheme}://acme.app")));
            assert!(referer(&format!("{scheme}://acme.app/")));
            assert!(referer(&format!("{scheme}://acme.app/canvas/1")));
            assert!(origin(&format!("{scheme}://acme.app")));
        }
        for wrong in [
            "",
            "acme.app",
            "ftp://acme.app",
            "https://acme.app.evil.example/",
            "https://acme.apps",
            "https://evil.example/https://acme.app/",
            "https://x@acme.app",
        ] {
            assert!(!referer(wrong), "{wrong}");
            assert!(!origin(wrong), "{wrong}");
        }
        assert!(!origin("https://acme.app/"), "an origin has no path");
        for host in [None, Some("")] {
            let whence = Whence { host, origin: Some("https://"), referer: Some("https:///") };
            assert!(!whence.same_origin());
        }
    }

    #[test]
    fn cb_10_the_local_canvas_is_always_listed_and_an_empty_origin_never() {
        let listed = |origin, list: &[&str]| {
            let list: Vec<String> = list.iter().map(|&text| text.to_owned()).collect();
            Whence { origin: Some(origin), ..Whence::default() }.listed(&list)
        };
        for local in LOCAL_CANVAS {
            assert!(listed(local, &[]) && listed(local, &["https://acme.app"]));
        }
        assert!(listed("https://acme.app", &["https://acme.app"]));
        assert!(!listed("", &[""]) && !listed("https://acme.app", &[]));
        assert!(!listed("http://localhost:3000/", &[]) && !Whence::default().listed(&[]));
    }

    #[test]
    fn tg_07_only_the_listed_paths_are_everybodys() {
        let open = |path| is_for("acme", path, None, None);
        for path in
            ["/health", "/metrics", "/registry/register", "/registry/heartbeat", "/cp/auth/me"]
        {
            assert!(open(path), "{path}");
        }
        for path in [
            "/health/x",
            "/healthz",
            "/registry/update-card",
            "/registry/discover/1",
            "/registry/1/peers",
            "/registry/register/",
            "/cp",
            "/",
        ] {
            assert!(!open(path), "{path}");
        }
    }

    #[test]
    fn tg_02_tg_03_tg_08_tg_09_a_tag_must_be_the_very_organisation() {
        let tagged = |tag, replayed| is_for("acme", "/workspaces", tag, replayed);
        assert!(tagged(Some("acme"), None) && tagged(None, Some("region=ams;state=acme")));
        assert!(!tagged(Some("acme2"), None) && !tagged(Some(""), None) && !tagged(None, None));
        assert!(!tagged(None, Some("state=acme2")));
    }

    #[test]
    fn tg_10_the_state_is_found_wherever_it_stands() {
        assert_eq!(replay_state("instance=1;region=ams;t=2;state=acme"), Some("acme"));
        assert_eq!(replay_state("state=acme; t=2"), Some("acme"));
        for none in ["", ";;", "instance=1", "estate=acme", "state", "state="] {
            assert_eq!(replay_state(none), None, "{none}");
        }
    }

    #[test]
    fn sh_06_a_path_answers_programs_by_its_whole_first_segment() {
        for path in
            ["/workspaces", "/workspaces/1/why", "/health", "/org/tokens", "/ws", "/events/1"]
        {
            assert!(answers_programs(path), "{path}");
        }
        for path in
            ["/", "", "/workspacesx", "/wsx", "/canvas/viewport", "/x/workspaces", "workspaces"]
        {
            assert!(!answers_programs(path), "{path}");
        }
    }

    #[test]
    fn px_01_px_02_paths_of_a_control_plane_end_where_their_segments_end() {
        for path in [
            "/cp/auth/me",
            "/cp/auth/",
            "/cp/orgs",
            "/cp/orgs/",
            "/cp/orgs/acme",
            "/cp/billing/plans",
            "/cp/templates",
            "/cp/templates/a",
            "/cp/legal/terms",
        ] {
            assert!(is_passed_on(path), "{path}");
        }
        for path in [
            "/cp",
            "/cp/",
            "/cp/auth",
            "/cp/authority/x",
            "/cp/orgsx",
            "/cp/templates-of-others",
            "/cp/admin/orgs",
            "/cp/workspaces/provision",
            "/cp/auth/../admin/orgs",
            "/cp/auth/%2e%2e/admin",
            "/cp/auth/..%2Fadmin",
            "/cp/orgs/./a",
            "/cp/auth/..\\admin",
            "/CP/auth/me",
        ] {
            assert!(!is_passed_on(path), "{path}");
        }
    }
}
