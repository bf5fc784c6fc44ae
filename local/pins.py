"""What is fetched from Maven repositories: exact coordinates, each with its size and SHA-256.

Resolved once, here, so that everybody runs the same bytes and nobody waits for a hundred POMs.
``python -m bandstand.local.pins`` resolves the two versions below anew and prints the two texts.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KAFKA_VERSION = "4.1.2"
APICURIO_VERSION = "2.6.13.Final"
_LOG4J_VERSION = "2.24.3"  # the one that Kafka's own jars are built with


@dataclass(frozen=True)
class Pin:
    """One file of a Maven repository.

    Parameters
    ----------
    coordinate
        ``group:artifact:version``; for anything but a jar, also ``:classifier:type``.
    size
        In bytes.
    sha256
        Of its content, in hex.
    """

    coordinate: str
    size: int
    sha256: str

    def artifact(self, maven: Any) -> Any:
        """Jgo's artifact of this coordinate in a ``MavenContext``."""
        group, name, version, *rest = self.coordinate.split(":")
        return maven.project(group, name).at_version(version).artifact(*rest)


def read_pins(text: str) -> tuple[Pin, ...]:
    r"""Read pins from lines of coordinate, size and SHA-256.

    Examples
    --------
    >>> read_pins("org.example:thing:1.0  12\n  ab01")
    (Pin(coordinate='org.example:thing:1.0', size=12, sha256='ab01'),)
    """
    words = text.split()
    return tuple(
        Pin(coordinate, int(size), digest)
        for coordinate, size, digest in zip(words[::3], words[1::3], words[2::3], strict=True)
    )


def resolve(maven: Any, endpoint: str) -> list[str]:
    """List the coordinates that a program needs at run time, its own first."""
    from jgo.parse import Coordinate

    inputs, others = maven.resolver.resolve([maven.create_dependency(Coordinate.parse(endpoint))])
    needed = [dep for dep in others if dep.scope in ("compile", "runtime")]
    return [f"{d.groupId}:{d.artifactId}:{d.version}" for d in [*inputs, *needed]]


def pin_text(maven: Any, coordinate: str) -> str:
    """Fetch a file and write its pin."""
    path = Pin(coordinate, 0, "").artifact(maven).resolve()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return f"{coordinate}  {path.stat().st_size}\n    {digest}\n"


def _main() -> None:
    from jgo.maven import MavenContext

    with tempfile.TemporaryDirectory() as folder:
        maven = MavenContext(repo_cache=Path(folder), local_repos=[])
        found = resolve(maven, f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}")
        # On its own: together, the versions that Log4j's build was tested with would win.
        log4j = f"org.apache.logging.log4j:log4j-slf4j-impl:{_LOG4J_VERSION}"
        known = {coordinate.rpartition(":")[0] for coordinate in found}
        found += [c for c in resolve(maven, log4j) if c.rpartition(":")[0] not in known]
        sys.stdout.writelines(pin_text(maven, coordinate) for coordinate in sorted(found))
        apicurio = f"io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:all:tar.gz"
        sys.stdout.write("\n" + pin_text(maven, apicurio))


KAFKA = read_pins("""
at.yawk.lz4:lz4-java:1.10.1  910232
    a58a84c4271e50df4c96ed916ccb7e48a869f8ed9cdcda1ad5d3d4c33b0214a3
com.dynatrace.hash4j:hash4j:0.22.0  316573
    23028a3fd006e530bf495f551083208187cafd8f80624d048eba56442f16a50e
com.fasterxml.jackson.core:jackson-annotations:2.19.4  79311
    ab26383fa3c10c0df1ffd1bb035d81161c059b1af71927d73c24473c058baa16
com.fasterxml.jackson.core:jackson-core:2.19.4  591409
    466ae4dc4f7054f51525f4211df411d9a64d65cc169995d32bf49e20e6f586e5
com.fasterxml.jackson.core:jackson-databind:2.19.4  1679441
    b781c431be870deb0bf84421e99e774c256a701f4ba678df80248f55cd16ff74
com.fasterxml.jackson.dataformat:jackson-dataformat-csv:2.19.4  106994
    fc06cf56909e43e0cdc84ad5e23069fcc4d503a8833bda348f47e50e8f1ac92c
com.fasterxml.jackson.dataformat:jackson-dataformat-yaml:2.19.4  60229
    998e652806c49ca59e2b6432c4edc37580c4702cb6189d10e6053d0b7982c2e7
com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.19.4  36413
    c0e0dc3039f9a37a099b2602838f833ea8c15c56445a0eb5463d0c7e0c355da2
com.github.ben-manes.caffeine:caffeine:3.2.0  906581
    ec411dfdf0c03f25218648ce89861630b71680e5858a9a7278ebac8e55cab3d7
com.github.luben:zstd-jni:1.5.6-10  7305999
    b6c3237e24b8252a5a9c3a0e1ae30ef8f323412e74bd358548b7a9e527d676df
com.google.re2j:re2j:1.8  114335
    7b52c72156dd7f98b3237a5b35c1d34fba381b21048c89208913ad80a45dfbd7
com.typesafe.scala-logging:scala-logging_2.13:3.9.5  61858
    87a3017d3f43e6ace7566fe4c3d615134c6914ff871c8d64bb32ca1d996d0545
com.yammer.metrics:metrics-core:2.2.0  82123
    6b7a14a6f34c10f8683f7b5e2f39df0f07b58c7dff0e468ebbc713905c46979c
commons-beanutils:commons-beanutils:1.11.0  246806
    9e44ba68ec9a3f21286fa2a8bbb003b735c0f69101bb43144b79f4f8aaa74709
commons-collections:commons-collections:3.2.2  588337
    eeeae917917144a68a741d4c0dff66aa5c5c5fd85593ff217bced3fc8ca783b8
commons-digester:commons-digester:2.1  196768
    e0b2b980a84fc6533c5ce291f1917b32c507f62bcad64198fff44368c2196a3d
commons-logging:commons-logging:1.3.5  73737
    6d7a744e4027649fbb50895df9497d109f98c766a637062fe8d2eabbb3140ba4
commons-validator:commons-validator:1.10.1  203132
    ed74711a78d793ca37f6075e4a1e93d107233dfd20d0bb17e32bad88d38e56aa
net.sf.jopt-simple:jopt-simple:5.0.4  78146
    df26cc58f235f477db07f753ba5a3ab243ebe5789d9f89ecf68dd62ea9a66c28
net.sourceforge.argparse4j:argparse4j:0.7.0  90347
    65ceb669d88f63306c680f8088bbf765bbca72d288a61a03703000076c3d3f56
org.apache.kafka:kafka-clients:4.1.2  9769826
    afe861c05067f4018a3148d73c1ed1e5fc90808757c15b043527d7e535a5d431
org.apache.kafka:kafka-coordinator-common:4.1.2  100654
    0e6697b6827fa635b4686ec9754b1c5583f4997e9bc0f33a8518f1dee518a454
org.apache.kafka:kafka-group-coordinator-api:4.1.2  11914
    781f932fb3e3824420e7554ef745b57e1827dd801cfc71bf8fd31eef56e60638
org.apache.kafka:kafka-group-coordinator:4.1.2  915256
    1925a002ef7c527b72a0877ed0d9f3a5f88a08d130d1ed2bdfcc40457ded354b
org.apache.kafka:kafka-metadata:4.1.2  840858
    ccc29f5423cf5fbe63b47871dbce00a16e05a38bd0d531b3bf21e5c71ba54fac
org.apache.kafka:kafka-raft:4.1.2  309751
    01f6717d07472b577a1cfe1cdf4d098b14a1dae4e35574164712801bd2a55cce
org.apache.kafka:kafka-server-common:4.1.2  371073
    0f1d8fb9478ca0e3eea23b81064749738b9bff705704067e2fe8d62047e5fc07
org.apache.kafka:kafka-server:4.1.2  219116
    2b849f1c9d3d9a08a5ea4c2f0479c552592cd770d72263d8d1610701a9b3e8d4
org.apache.kafka:kafka-share-coordinator:4.1.2  111777
    fffacfaa46e7f25696f673035f86669422ae81889dfd28d8fec29500ee888310
org.apache.kafka:kafka-storage-api:4.1.2  26987
    79910cc7d0e3d3a9d9ce6f30f6f000cd355321f604a0f6c73c948389d1b41457
org.apache.kafka:kafka-storage:4.1.2  591039
    902a08f775a9957e1546ecec8e22fbda73b84be9dfbdf04cce7a023dd60bf8b9
org.apache.kafka:kafka-tools-api:4.1.2  9072
    6d4d6a33b0dcd2180e7489c58c0089f8fb502e7a095cdd46f57755df462f00ae
org.apache.kafka:kafka-transaction-coordinator:4.1.2  50504
    20939d46e1e65a34d6a59b447f0a5e63721678abbfdc948a5f9422930d71612c
org.apache.kafka:kafka_2.13:4.1.2  2064221
    965af2d9c19be0c169110eb18468a0bee24e24d14071a57c7f8a57bc4d3f990e
org.apache.logging.log4j:log4j-api:2.25.3  350610
    e886682920fa0fb9d6eb6395dcb4de088443f8646c89c5e5846e168e327f406f
org.apache.logging.log4j:log4j-core:2.25.3  2018402
    362b7fcb65b73aa46cc4bc53abf4eb216f444a83b5d1a037cb6fdfff0ae9f0f9
org.apache.logging.log4j:log4j-slf4j-impl:2.24.3  25319
    40dec251164d1576e000968cd02e56a1125f46b91fb694a06dfa168f1335da48
org.bitbucket.b_c:jose4j:0.9.6  299502
    7314af50cde9c99e8eaf43eee617a23edcc6bb43036221064355094999d837ef
org.hdrhistogram:HdrHistogram:2.2.2  177206
    22d1d4316c4ec13a68b559e98c8256d69071593731da96136640f864fa14fad8
org.jspecify:jspecify:1.0.0  3819
    1fad6e6be7557781e4d33729d49ae1cdc8fdda6fe477bb0cc68ce351eafdfbab
org.pcollections:pcollections:4.0.2  73718
    2bbeef5797a241300c4f7513cd546239629ed7deda4fc0c31df90bb95f5f13ef
org.scala-lang:scala-library:2.13.16  5926340
    1ebb2b6f9e4eb4022497c19b1e1e825019c08514f962aaac197145f88ed730f1
org.scala-lang:scala-reflect:2.13.16  3801119
    fb49ccd9cac7464486ab993cda20a3c1569d8ef26f052e897577ad2a4970fb1d
org.slf4j:slf4j-api:1.7.36  41125
    d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0
org.xerial.snappy:snappy-java:1.1.10.7  2338496
    4c766cb3f855415ee734b2392949a0b6f12a60879334a74518deaf6270d32e36
org.yaml:snakeyaml:2.4  339825
    ef779af5d29a9dde8cc70ce0341f5c6f7735e23edff9685ceaa9d35359b7bb7f
""")

APICURIO = read_pins("""
io.apicurio:apicurio-registry-app:2.6.13.Final:all:tar.gz  142198683
    3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba
""")


if __name__ == "__main__":
    _main()
