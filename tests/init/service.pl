#!/usr/bin/perl
# A stand-in for one TARS service: listens on the endpoints of its configuration and answers tars_ping.
# A file <root>/behaviour/<service> changes it: `mute` accepts and never answers, `deaf` ignores SIGTERM,
# `fail` exits with 255 and a word, `slow` needs most of a second to end. What is told to end notes that in
# <root>/behaviour/told, and in <root>/behaviour/ended when it does. The daemon forks twice, as tarsnode does, and runs
# <root>/behaviour/run at SIGUSR1.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use POSIX ();

my ($name) = $0 =~ m{([^/]+)$};
my ($root) = $0 =~ m{^(.*)/usr/local/app/tars/};
my %behaviour = map { $_ => 1 } -e "$root/behaviour/$name" ? split ' ', slurp("$root/behaviour/$name") : ();
$| = 1;
if ($name eq 'tarsnode') {
    POSIX::_exit(0) if fork;
    POSIX::setsid();
    POSIX::_exit(0) if fork;
}
if ($behaviour{fail}) {
    print "cannot assign requested address\n";
    POSIX::_exit(255);
}
$SIG{TERM} = $behaviour{deaf} ? 'IGNORE' : sub {
    note('told');
    select undef, undef, undef, 0.7 if $behaviour{slow};
    note('ended');
    POSIX::_exit(0);
};
$SIG{USR1} = sub { fork or exec 'sh', "$root/behaviour/run" } if $name eq 'tarsnode';
open my $environment, '>', "$root/behaviour/$name.environment";
print $environment "$_=$ENV{$_}\n" for sort keys %ENV;
close $environment;

my ($conf) = map { /^--config=(.*)/ ? $1 : () } @ARGV;
my @listening = map {
    my ($host, $port) = @$_;
    IO::Socket::INET->new(LocalAddr => $host, LocalPort => $port, Listen => 64, ReuseAddr => 1)
        or (print("bind $host:$port: $!\n"), POSIX::_exit(255));
} slurp($conf) =~ /NodeAdapter/ ? endpoints($conf, 19386) : endpoints($conf);
my $select = IO::Select->new(@listening);
my %is_listening = map { $_ => 1 } @listening;
while (1) {
    for my $socket ($select->can_read) {
        if ($is_listening{$socket}) {
            $select->add(scalar $socket->accept);
        } elsif (!sysread $socket, my $frame, 4096) {
            $select->remove($socket);
            close $socket;
        } elsif (!$behaviour{mute}) {
            syswrite $socket, pack('H*', '0000001010012c30014c5c6d000c780c');
        }
    }
}

sub note {
    open my $file, '>>', "$root/behaviour/$_[0]" or return;
    syswrite $file, "$name\n";
    close $file;
}

sub endpoints {
    my ($file, $only) = @_;
    my @found;
    my $text = slurp($file);
    push @found, [$1, $2] while $text =~ /^\s*endpoint\s*=\s*tcp -h (\S+) -p (\d+)/mg;
    return grep { !$only || $_->[1] == $only } @found;
}

sub slurp {
    open my $file, '<', $_[0] or (print("$_[0]: $!\n"), POSIX::_exit(255));
    local $/;
    return scalar <$file>;
}
