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
        // An IPv4 address in IPv6 clothes is judged as what it is.
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => judge_v4(v4, setting),
            None => judge_v6(v6, setting),
        },
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
    fn strict_refuses_everything_that_is_not_public() {
        let strict = Setting::default();
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
            ("224.0.0.1", Refused::Reserved),
            ("fc00::1", Refused::Reserved),
            ("2001:db8::1", Refused::Reserved),
            ("0.0.0.0", Refused::Reserved),
        ] {
            check(ip, strict, Err(why));
        }
        check("93.184.216.34", strict, Ok(()));
        check("2606:4700::1111", strict, Ok(()));
    }

    #[test]
    fn saas_owns_private_networks_and_nothing_more() {
        let saas = Setting { private_is_ours: true, loopback_is_ours: false };
        check("10.1.2.3", saas, Ok(()));
        check("fd00::1", saas, Ok(()));
        check("169.254.169.254", saas, Err(Refused::LinkLocal));
        check("127.0.0.1", saas, Err(Refused::Loopback));
        check("fc00::1", saas, Err(Refused::Reserved));
    }

    #[test]
    fn development_may_call_loopback() {
        let dev = Setting { private_is_ours: true, loopback_is_ours: true };
        check("127.0.0.1", dev, Ok(()));
        check("169.254.169.254", dev, Err(Refused::LinkLocal));
    }
}
