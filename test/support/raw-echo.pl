# Answers packets of an IP protocol without ports, or asks with one.
#   raw-echo.pl answer PROTOCOL NAME [ADDRESS]  prints "ready", then answers each with its first 8 bytes and the name; only
#                                               packets to that address of its own, and from it
#   raw-echo.pl ask PROTOCOL SOURCE ADDRESS     prints the name in the answer, or "no answer"
use strict;
use warnings;
use Socket;
$| = 1;
my ($verb, $protocol, @rest) = @ARGV;
socket(my $socket, PF_INET, SOCK_RAW, $protocol) or die "socket: $!";
if ($verb eq 'answer') {
  if (@rest > 1) { bind($socket, sockaddr_in(0, inet_aton($rest[1]))) or die "bind: $!" }
  print "ready\n";
  while (my $from = recv($socket, my $packet, 2048, 0)) {
    my $body = substr($packet, (ord($packet) & 15) * 4);
    send($socket, substr($body, 0, 8) . $rest[0], 0, $from);
  }
} else {
  my ($source, $address) = @rest;
  bind($socket, sockaddr_in(0, inet_aton($source))) or die "bind: $!";
  connect($socket, sockaddr_in(0, inet_aton($address))) or die "connect: $!";
  # As GRE: version 0, no key, IPv4 inside. As ESP: an index of security parameters, and a sequence number.
  send($socket, $protocol == 47 ? pack('nnN', 0, 0x0800, 1) : pack('NN', 4242, 1), 0);
  my $ready = '';
  vec($ready, fileno($socket), 1) = 1;
  if (select($ready, undef, undef, 2)) {
    recv($socket, my $packet, 2048, 0);
    print substr($packet, (ord($packet) & 15) * 4 + 8), "\n";
  } else {
    print "no answer\n";
  }
}
