extension Seeds {
  static func configurationSeeds() -> [[UInt8]] {
    let smallest = """
      node: re0
      slot: 0
      link:
        listen: 10.77.0.1:7000
        connect: 10.77.0.2:7000
        insecure: true
      addresses: [ 5.5.5.5/24 ]
      uplinks: [ eth0 ]

      """
    let full = """
      node: re1
      slot: 1
      link: { listen: "[2001:db8::2]:7000", connect: "[2001:db8::1]:7000", tls: { certificate: c/re1.pem, key: re1.key, ca: /ca.pem, name: b, peer: a } }
      addresses:
        - 5.5.5.5/24
        - 2001:db8::5/64
      uplinks:
        - eth0
      mastership:
        arbiter: pair
        priority: 200
        keepalive: { interval: 100ms, misses: 3 }
      control: /run/jsr/jsrd.sock
      mode: strict
      timeouts: { prl: 1s, sdrl: 500ms, psrm: 1m }
      limits:
        sockets: 20000
        snoop-buffer: 4MiB
        hold-buffer: 64MiB
        record: 131072B
      log:
        level: debug
        destination: stderr
      debug: true

      """
    let wrong = [
      "", "\n", "#\n", "[]", "- a\n- b\n", "node: [", "a: b: c", "node: re0\nnode: re1\n", "? [a]\n: b\n",
      "node: &a re0\nslot: *a\n", "node: !!int 7\n", "--- a\n--- b\n", "node: |\n  re0\n", "\tnode: re0\n",
      "link: { tls: { certificate: a, key: b } }\n", "%YAML 1.2\n---\nnode: re0\n",
    ]
    let changed = [
      smallest + "colour: blue\n", smallest + "timeouts: { prl: 1h }\n", smallest + "limits: { record: 1 }\n",
      smallest + "mastership: { arbiter: etcd }\n", smallest + "log: { destination: syslog }\n",
      smallest + "mode: \"strict\"\n", smallest + "debug: yes\n",
    ]
    let values = [
      "0", "-1", "256", "99999999999999999999", "9223372036854775807m", "17179869184GiB", "10ms", "\"1\"",
      "[]",
      "{}", "[ a, a ]", "re0", "1.2.3.4:0", "[::1]:70000", "[ 0.0.0.0/0 ]", "[ 5.5.5.5/33 ]", "/",
    ]
    return ([smallest, full] + wrong + changed).map { Array($0.utf8) }
      + values.flatMap { value in (UInt8(0)..<27).map { [0x80 + $0] + Array(value.utf8) } }
  }
}
