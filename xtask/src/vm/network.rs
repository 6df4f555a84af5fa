//! Networks between SoftRoCE devices. The devices that every guest has are on interfaces that lead nowhere: each reaches
//! itself only.

use clap::ValueEnum;

/// A network that a guest may have: a wire with a device at each of its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// wired0 at 10.8.0.1 and fe80::aff:fe08:1%wire1, wired1 at 10.8.0.2 and fe80::aff:fe08:2%wire0
    Wire,
    /// In two network namespaces: rxa in `a` at 10.9.0.1 and fd09::1, rxb in `b` at 10.9.0.2 and fd09::2 (since Linux 7)
    Namespaces,
    /// rxf at 10.10.0.1, and at the other end of its wire the namespace `soft`, at 10.10.0.2 on foreign1, for a device that is not
    /// the kernel's
    Foreign,
}

/// Adds one end of a wire: the number of its network, its own number, the device, the interface, and the words before a
/// command that bring it into the namespace, if that is another.
///
/// The other end is made a neighbour that is known for good. If `rdma_resolve_addr` had to ask for it, it would take all of
/// its timeout: over a wire without delay the answer is there before the kernel has queued the request that it should wake.
/// And link-local addresses can be used at once, without a look for duplicates.
const ADD_END: &str = r#"
add_end() {
  local network=$1 end=$2 device=$3 interface=$4 peer=$((3 - $2)) address
  shift 4
  "$@" bash -c "echo 0 > /proc/sys/net/ipv6/conf/$interface/accept_dad"
  "$@" ip addr add 10.$network.0.$end/24 dev $interface && "$@" ip link set $interface up &&
    "$@" rdma link add $device type rxe netdev $interface || return
  for address in 10.$network.0.$peer fe80::aff:fe0$network:$peer; do
    "$@" ip neigh add $address dev $interface lladdr 02:00:0a:0$network:00:0$peer nud permanent || return
  done
}
add_wire() {
  ip link add $1 address 02:00:0a:0$3:00:01 type veth peer name $2 address 02:00:0a:0$3:00:02
}
"#;

/// In one namespace the kernel must be told to take what comes from an address of its own. It can be for IPv4, and
/// link-local addresses do not need it; this is why there are no others of IPv6.
const ADD_WIRE: &str = r#"
join_devices() {
  add_wire wire0 wire1 8 || return
  for n in 0 1; do
    echo 1 > /proc/sys/net/ipv4/conf/wire$n/accept_local
    add_end 8 $((n + 1)) wired$n wire$n || return
  done
}
problem=$(join_devices 2>&1) || fail "cannot join two devices: $problem"
for n in 0 1; do
  gid_index wired$n 0a08:000$((n + 1)) > /dev/null || fail "wired$n got no GID for its IPv4 address"
done
export IBVERBS_TEST_WIRE=10.8.0.1,10.8.0.2
"#;

const ADD_NAMESPACES: &str = r#"
join_namespaces() {
  local n end=1 peer=2
  add_wire va vb 9 || return
  for n in a b; do
    ip netns add $n && ip link set v$n netns $n && ip -n $n link set lo up &&
      add_end 9 $end rx$n v$n ip netns exec $n &&
      ip -n $n -6 addr add fd09::$end/64 dev v$n nodad &&
      ip -n $n neigh add fd09::$peer dev v$n lladdr 02:00:0a:09:00:0$peer nud permanent || return
    end=2 peer=1
  done
}
problem=$(join_namespaces 2>&1) || fail "cannot join two network namespaces: $problem"
gid_index rxa 0a09:0001 > /dev/null && gid_index rxb 0a09:0002 > /dev/null ||
  fail "a device in a network namespace got no GID for its IPv4 address"
"#;

const ADD_FOREIGN: &str = r#"
join_foreign() {
  ip link add foreign0 type veth peer name foreign1 && ip netns add soft && ip link set foreign1 netns soft &&
    ip addr add 10.10.0.1/24 dev foreign0 && ip link set foreign0 up && ip -n soft link set lo up &&
    ip -n soft addr add 10.10.0.2/24 dev foreign1 && ip -n soft link set foreign1 up &&
    rdma link add rxf type rxe netdev foreign0
}
problem=$(join_foreign 2>&1) || fail "cannot join a device with another namespace: $problem"
gid_index rxf 0a0a:0001 > /dev/null || fail "rxf got no GID for its IPv4 address"
"#;

impl Network {
    /// Those whose ends reach each other under a kernel. SoftRoCE of older ones does not work outside the first namespace.
    pub(crate) fn of_kernel(major: u64) -> &'static [Self] {
        if major >= 7 {
            &[Self::Wire, Self::Namespaces]
        } else {
            &[Self::Wire]
        }
    }

    /// Sets networks up: a script for bash, that uses the functions of the guest's.
    pub(super) fn set_up(networks: &[Self]) -> String {
        let each = networks.iter().map(|network| match network {
            Self::Wire => ADD_WIRE,
            Self::Namespaces => ADD_NAMESPACES,
            Self::Foreign => ADD_FOREIGN,
        });
        [ADD_END].into_iter().chain(each).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_kernels_have_one_namespace() {
        assert_eq!(Network::of_kernel(6), [Network::Wire]);
        assert_eq!(Network::of_kernel(7), [Network::Wire, Network::Namespaces]);
    }
}
