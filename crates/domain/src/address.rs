//! Which addresses an agent may advertise, and which the platform may call.
//!
//! An address that a backend reported is trusted and never comes here. Every other one is judged twice: at
//! registration and again before each call. Names are resolved by the caller; this judges what they
//! resolve to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where the platform runs, as far as addresses go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    /// Private networks are ours (the contract's SaaS mode).
    pub private_is_ours: bool,
    /// Loopback may be called (development).
    pub loopback_is_ours: bool,
}

impl Setting {
    /// How an address is judged that an agent advertises. Development makes no difference: loopback is the
    /// agent's own machine, which is rarely the platform's.
    #[must_use]
    pub const fn to_advertise(saas: bool) -> Self {
        Self { private_is_ours: saas, loopback_is_ours: false }
    }

    /// How an address is judged that the platform is about to call.
    #[must_use]
    pub const fn to_call(saas: bool, development: bool) -> Self {
        Self { private_is_ours: saas || development, loopback_is_ours: development }
    }
}

/// Whether `host` is the tunnel of a workspace: `ws-….DOMAIN`. Its name may be announced a moment after the
/// agent registers, so that not resolving yet is no reason to refuse it.
#[must_use]
pub fn is_tunnel(host: &str, domain: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let domain = domain.trim_matches('.').to_ascii_lowercase();
    let label = host.strip_suffix(&domain).and_then(|rest| rest.strip_suffix('.'));
    !domain.is_empty() && label.is_some_and(|label| label.len() > 3 && label.starts_with("ws-"))
}

/// Why an address is refused. The text names the range, not the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// 127.0.0.0/8, ::1.
    #[error("loopback addresses are not allowed")]
    Loopback,
    /// 169.254.0.0/16, fe80::/10: among them every cloud's metadata service.
    #[error("link-local and metadata addresses are not allowed")]
    LinkLocal,
    /// RFC 1918 and fd00::/8, outside SaaS mode.
    #[error("private addresses are not allowed")]
    Private,
    /// Documentation, carrier-grade NAT, multicast, unspecified, fc00::/8.
    #[error("reserved addresses are not allowed")]
    Reserved,
}

/// Judge one resolved address.
///
/// # Errors
/// [`Refused`] names the range that the address falls in.
pub fn judge(ip: IpAddr, setting: Setting) -> Result<(), Refused> {
    match ip {
        IpAddr::V4(v4) => judge_v4(v4, setting),
        IpAddr::V6(v6) => match within(v6) {
            Some(v4) => judge_v4(v4, setting),
            None => judge_v6(v6, setting),
        },
    }
}

/// The IPv4 address that one in IPv6 clothes is, or that a translator or a tunnel makes of it: it is judged as
/// what it reaches.
fn within(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // Unspecified and loopback, IPv6's own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Compatible, mapped, translated (64:ff9b::/96).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some(of(high, low))
        }
        // 6to4.
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

fn judge_v4(ip: Ipv4Addr, setting: Setting) -> Result<(), Refused> {
    let [a, b, ..] = ip.octets();
    if ip.is_loopback() {
        return if setting.loopback_is_ours { Ok(()) } else { Err(Refused::Loopback) };
    }
    if ip.is_link_local() {
        return Err(Refused::LinkLocal);
    }
    let carrier_grade_nat = a == 100 && (64..128).contains(&b);
    if ip.is_documentation() || carrier_grade_nat || ip.is_multicast() || ip.is_unspecified() {
        return Err(Refused::Reserved);
    }
    if ip.is_private() && !setting.private_is_ours {
        return Err(Refused::Private);
    }
    Ok(())
}

fn judge_v6(ip: Ipv6Addr, setting: Setting) -> Result<(), Refused> {
    let first = ip.segments()[0];
    if ip.is_loopback() {
        return if setting.loopback_is_ours { Ok(()) } else { Err(Refused::Loopback) };
    }
    if first & 0xffc0 == 0xfe80 {
        return Err(Refused::LinkLocal);
    }
    let documentation = first == 0x2001 && ip.segments()[1] == 0x0db8;
    if documentation || ip.is_unspecified() || ip.is_multicast() || first & 0xff00 == 0xfc00 {
        return Err(Refused::Reserved);
    }
    if first & 0xff00 == 0xfd00 && !setting.private_is_ours {
        return Err(Refused::Private);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, setting: Setting, expected: Result<(), Refused>) {
        assert_eq!(judge(text.parse().unwrap(), setting), expected, "{text}");
    }

    #[test]
    fn uv_01_strict_refuses_everything_that_is_not_public() {
        let strict = Setting::to_advertise(false);
        assert_eq!(strict, Setting::default());
        for (ip, why) in [
            ("127.0.0.1", Refused::Loopback),
            ("::1", Refused::Loopback),
            ("::ffff:127.0.0.1", Refused::Loopback),
            ("169.254.169.254", Refused::LinkLocal),
            ("fe80::1", Refused::LinkLocal),
            ("10.1.2.3", Refused::Private),
            ("172.16.0.1", Refused::Private),
            ("192.168.1.1", Refused::Private),
            ("fd00::1", Refused::Private),
            ("100.64.0.1", Refused::Reserved),
            ("192.0.2.1", Refused::Reserved),
            ("198.51.100.7", Refused::Reserved),
            ("203.0.113.7", Refused::Reserved),
            ("::ffff:10.0.0.1", Refused::Private),
            ("::ffff:169.254.169.254", Refused::LinkLocal),
            ("::169.254.169.254", Refused::LinkLocal),
            ("::127.0.0.1", Refused::Loopback),
            ("64:ff9b::169.254.169.254", Refused::LinkLocal),
            ("64:ff9b::10.0.0.1", Refused::Private),
            ("2002:7f00:1::1", Refused::Loopback),
            ("2002:a9fe:a9fe::", Refused::LinkLocal),
            ("2002:c0a8:101:1::1", Refused::Private),
            ("224.0.0.1", Refused::Reserved),
            ("fc00::1", Refused::Reserved),
            ("2001:db8::1", Refused::Reserved),
            ("0.0.0.0", Refused::Reserved),
        ] {
            check(ip, strict, Err(why));
        }
        check("93.184.216.34", strict, Ok(()));
        for public in ["2606:4700::1111", "64:ff9b::93.184.216.34", "2002:5db8:d822::1"] {
            check(public, strict, Ok(()));
        }
    }

    #[test]
    fn uv_02_uv_03_saas_owns_private_networks_and_nothing_more() {
        let saas = Setting::to_advertise(true);
        for ours in ["10.1.2.3", "172.16.0.1", "192.168.1.1", "fd00::1", "::ffff:10.0.0.1"] {
            check(ours, saas, Ok(()));
        }
        check("169.254.169.254", saas, Err(Refused::LinkLocal));
        check("127.0.0.1", saas, Err(Refused::Loopback));
        for never in ["100.64.0.1", "192.0.2.1", "198.51.100.1", "224.0.0.1", "fc00::1"] {
            check(never, saas, Err(Refused::Reserved));
        }
    }

    #[test]
    fn sf_01_02_03_04_05_what_may_be_called_depends_on_where_the_platform_runs() {
        let production = Setting::to_call(false, false);
        check("127.0.0.1", production, Err(Refused::Loopback));
        check("::1", production, Err(Refused::Loopback));
        check("10.1.2.3", production, Err(Refused::Private));
        let saas = Setting::to_call(true, false);
        check("10.1.2.3", saas, Ok(()));
        check("127.0.0.1", saas, Err(Refused::Loopback));
        let development = Setting::to_call(false, true);
        for ours in ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "fd00::1"] {
            check(ours, development, Ok(()));
        }
        check("169.254.169.254", development, Err(Refused::LinkLocal));
        for never in ["192.0.2.1", "2001:db8::1", "100.64.0.1", "fc00::1", "0.0.0.0"] {
            check(never, development, Err(Refused::Reserved));
        }
    }

    #[test]
    fn a_tunnel_is_told_by_its_whole_name() {
        for (host, tunnel) in [
            ("ws-1.agents.example", true),
            ("WS-a-b.Agents.Example.", true),
            ("ws-.agents.example", false),
            ("ws-1.agents.example.org", false),
            ("ws-1.evilagents.example", false),
            ("web-1.agents.example", false),
            ("agents.example", false),
        ] {
            assert_eq!(is_tunnel(host, "agents.example"), tunnel, "{host}");
        }
        assert!(!is_tunnel("ws-1.", "") && !is_tunnel("ws-1", "."));
    }
}
