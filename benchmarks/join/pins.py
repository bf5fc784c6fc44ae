"""The Java peers' jars: exact coordinates, each with its size and SHA-256.

``python -m benchmarks.join.pins`` resolves the versions below anew and prints the three texts.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from jgo.maven import MavenContext

from bandstand.local.pins import KAFKA_VERSION, pin_text, read_pins, resolve

__all__ = ["COMPILER", "FLINK", "FLINK_VERSION", "STREAMS"]

FLINK_VERSION = "1.20.5"
_FLINK_PARTS = ("streaming-java", "clients", "statebackend-rocksdb", "connector-base")
_AVRO = "org.apache.avro:avro:1.12.0"
_LEFT_OUT = {"org.lz4:lz4-java"}
"""What at.yawk.lz4:lz4-java, its successor, has too."""


def _texts() -> list[list[str]]:
    flink = [f"org.apache.flink:flink-{name}:{FLINK_VERSION}" for name in _FLINK_PARTS]
    with tempfile.TemporaryDirectory() as folder:
        maven = MavenContext(repo_cache=Path(folder), local_repos=[])
        found: dict[str, str] = {}
        for endpoint in [*flink, "org.apache.flink:flink-connector-kafka:3.4.0-1.20", _AVRO]:
            for coordinate in resolve(maven, endpoint):
                found.setdefault(coordinate.rpartition(":")[0], coordinate)
        wanted = [coordinate for name, coordinate in found.items() if name not in _LEFT_OUT]
        streams = [
            f"org.apache.kafka:kafka-streams:{KAFKA_VERSION}",
            "org.rocksdb:rocksdbjni:9.7.3",
            _AVRO,
        ]
        return [
            [pin_text(maven, coordinate) for coordinate in sorted(coordinates)]
            for coordinates in (["org.eclipse.jdt:ecj:3.43.0"], streams, wanted)
        ]


# Eclipse's Java compiler: it needs no JDK.
COMPILER = read_pins("""
org.eclipse.jdt:ecj:3.43.0  3329190
    c786468c65e906498e7e36ece4e0d04c6d3dd34c9a61b34a3a5b512801911a82
""")

# Beside Kafka's own jars.
STREAMS = read_pins("""
org.apache.avro:avro:1.12.0  713436
    1f5fbfff9b7427d6832cc3031a3c81413d3e21d9e2551847d9231c28493f9492
org.apache.kafka:kafka-streams:4.1.2  2052311
    415998b32e8627b3ce21ff87226c66f3313e9fc52eca2513a3600bf492e3cbac
org.rocksdb:rocksdbjni:9.7.3  70837810
    5ca63e0e955f101f7af1c1fb8ce260b5d3a5701cea7d8c2852b9d56031a57221
""")

FLINK = read_pins("""
at.yawk.lz4:lz4-java:1.10.3  1002283
    49753ae8a9b7dc3ce48cb2989cc6605e43eb8269748ad3466251836ec4cd02a8
com.esotericsoftware.kryo:kryo:2.24.0  339283
    7e56b32c635058f9aa2820f88919ab702d029cbcd15285da9992e36cc0ae52f2
com.esotericsoftware.minlog:minlog:1.2  4965
    a678cb1aa8f5d03d901c992c75741841d98a9bc3d55dad02e84d65315c4e60f2
com.fasterxml.jackson.core:jackson-annotations:2.15.2  75567
    04e21f94dcfee4b078fa5a5f53047b785aaba69d19de392f616e7a7fe5d3882f
com.fasterxml.jackson.core:jackson-core:2.15.2  549207
    303c99e82b1faa91a0bae5d8fbeb56f7e2adf9b526a900dd723bf140d62bd4b4
com.fasterxml.jackson.core:jackson-databind:2.15.2  1620088
    0eb2fdad6e40ab8832a78c9b22f58196dd970594e8d3d5a26ead87847c4f3a96
com.fasterxml.jackson.datatype:jackson-datatype-jdk8:2.15.2  36110
    5be6e20504b1eab7a40f98c4f98bd92e9177d6e6e20f183928e7d207fc66cb78
com.fasterxml.jackson.datatype:jackson-datatype-jsr310:2.15.2  122937
    7574c81ad570476ef6aad26f419288fd466733f3315bee3012f2f29c9dc008c8
com.github.luben:zstd-jni:1.5.2-1  5885445
    93f7e4cbc907c2650f89f9f0bec94873735a58f1e4b66a54973294e4ec1878e8
com.google.code.findbugs:jsr305:1.3.9  33015
    905721a0eea90a81534abb7ee6ef4ea2e5e645fa1def0a5cd88402df1b46c9ed
com.google.errorprone:error_prone_annotations:2.18.0  16017
    9e6814cb71816988a4fd1b07a993a8f21bb7058d522c162b1de849e19bea54ae
com.google.guava:failureaccess:1.0.1  4617
    a171ee4c734dd2da837e4b16be9df4661afab72a41adaf31eb84dfdaf936ca26
com.google.guava:guava:32.1.2-jre  3041591
    bc65dea7cfd9e4dacf8419d8af0e741655857d27885bb35d943d7187fc3a8fce
com.google.guava:listenablefuture:9999.0-empty-to-avoid-conflict-with-guava  2199
    b372a037d4230aa57fbeffdef30fd6123f9c0c2db85d0aced00c91b974f33f99
com.google.j2objc:j2objc-annotations:2.8  9301
    f02a95fa1a5e95edb3ed859fd0fb7df709d121a35290eff8b74dce2ab7f4d6ed
com.twitter:chill-java:0.7.6  60207
    f7c41a2257be11e6c9bca97095c8f4b0299626941a3508469f90622eb8f8368e
com.ververica:frocksdbjni:6.20.3-ververica-2.0  41379599
    5e6e5063b75196a17fbeaf656f088a807f83177525d9ecbec7125b9f3630b966
commons-cli:commons-cli:1.5.0  58284
    bc8bb01fc0fad250385706e20f927ddcff6173f6339b387dc879237752567ac6
commons-codec:commons-codec:1.17.0  372608
    f700de80ac270d0344fdea7468201d8b9c805e5c648331c3619f2ee067ccfc59
commons-collections:commons-collections:3.2.2  588337
    eeeae917917144a68a741d4c0dff66aa5c5c5fd85593ff217bced3fc8ca783b8
commons-io:commons-io:2.15.1  501218
    a58af12ee1b68cfd2ebb0c27caef164f084381a00ec81a48cc275fd7ea54e154
org.apache.avro:avro:1.12.0  713436
    1f5fbfff9b7427d6832cc3031a3c81413d3e21d9e2551847d9231c28493f9492
org.apache.commons:commons-compress:1.26.0  1078328
    051aceb8bbcc62d0f5b2b8ac72c53767f9c59bfbd050151e65bef6f51c8ed9c9
org.apache.commons:commons-lang3:3.12.0  587402
    d919d904486c037f8d193412da0c92e22a9fa24230b9d67a57855c5c31c7e94e
org.apache.commons:commons-math3:3.6.1  2213560
    1e56d7b058d28b65abd256b8458e3885b674c1d588fa43cd7d1cbb9c7ef2b308
org.apache.commons:commons-text:1.10.0  238400
    770cd903fa7b604d1f7ef7ba17f84108667294b2b478be8ed1af3bffb4ae0018
org.apache.flink:flink-annotations:1.20.5  18969
    c38b9eea35774db59a9f3ab652db983614c1d646db92fc2a07c0aaa6be9b79b4
org.apache.flink:flink-clients:1.20.5  240548
    a166d5b7b7283e93d4896165ff08a16a07b00e6cb04816baf88521cd64c29aff
org.apache.flink:flink-connector-base:1.20.5  142983
    c67b3efbad9c9ebfd72ae91797cf4e7e3d8daa10e263f16f177fe12e05042a22
org.apache.flink:flink-connector-datagen:1.20.5  22920
    1f9fd4b0f142f87ea92f443952d257a83d4c1cd0bf0e342ef146e059e93d6ccc
org.apache.flink:flink-connector-kafka:3.4.0-1.20  484429
    0deab094f7f54df9e8cb7c77c15b4392e1f9923f98f8972b4346f6ff384bf5e6
org.apache.flink:flink-core-api:1.20.5  71833
    201f858b5b506ad83a8327b5e09a8f327d16d78128a511a9830c27f25f0481f8
org.apache.flink:flink-core:1.20.5  1915470
    c0f13f1b910ba1ca94242bad50421d86c0bce9b03dec2917c72f1209cf7b15e4
org.apache.flink:flink-datastream-api:1.20.5  26949
    088c35c728981d7cac0494e6f1e3ff6c00bee6e37be2fcfe7654d27e248bbe22
org.apache.flink:flink-datastream:1.20.5  95003
    e2bf3bd3b6b1d3c2c514a0afdfb732b56c2f4c31621b6402fadbbd8092a54273
org.apache.flink:flink-file-sink-common:1.20.5  50499
    4adc29fb0c9d7c40a8b6a02eb6fb94f72e45b24cfe40816c2596a42fa75dc972
org.apache.flink:flink-hadoop-fs:1.20.5  42051
    90d8b4a9d24b23da3006c130e54fbda77e6cb72bc8aa038928788981b1e8f1b4
org.apache.flink:flink-java:1.20.5  439987
    81e490f89b1067e9bef0bb8f7f58ab44673ab7074d89702bda9a9646105a4658
org.apache.flink:flink-metrics-core:1.20.5  38008
    cdc3a82c5c35cc5dbc2b83f8a27f6e87e875f17fb7a06a8f9d3f2078a897c469
org.apache.flink:flink-optimizer:1.20.5  358069
    2ee54528f5d209cd717edfdb1eb2bb0283e76e2d612387b3e396ac408594d3d3
org.apache.flink:flink-queryable-state-client-java:1.20.5  84699
    ace46a77389b455d777abf28d4ac2cdfff27333cb246d4fe84ed53c36b7edac8
org.apache.flink:flink-rpc-akka-loader:1.20.5  19716337
    1a81488599efdff40df95ba090fc05a173c642da4096a7f65bde2e04d3710435
org.apache.flink:flink-rpc-core:1.20.5  56025
    ab8e97e4cd929ac4f21e20076860d6d6bbe6ffd64f862c7eabf882688abc67ca
org.apache.flink:flink-runtime:1.20.5  6366045
    e7b981dbb312463ee66e8bbf8caddcf7f9fad5d79ae16366ce94f8a83a4b3100
org.apache.flink:flink-shaded-asm-9:9.5-17.0  296034
    a79273d4fbea1683b5fe81bce25d7fe552a542690481132f7ded034a8f00169e
org.apache.flink:flink-shaded-guava:31.1-jre-17.0  3171088
    03442ae97c4ca34388568cbce0e67e9911b0137b2b3849dff7a550008d5a4336
org.apache.flink:flink-shaded-jackson:2.14.2-17.0  2887740
    37e87311498ae8da80adb2aa09ab6e9739d8611e09868e7220822206c739231e
org.apache.flink:flink-shaded-netty:4.1.91.Final-17.0  4914460
    c4d370f1b2bda0b55686fdec840c8a047950b9448f26cd01f1594a3bf0fde75b
org.apache.flink:flink-shaded-zookeeper-3:3.7.1-17.0  11732844
    e91cb263c67631a27e7a6cee147b75a9a638f3c52fcd053106fc4584feb6e585
org.apache.flink:flink-statebackend-rocksdb:1.20.5  330222
    2c52988e629aefbf9735796cf6e4f8fe3a61f2851bdd328e1c4b2466cb047c4d
org.apache.flink:flink-streaming-java:1.20.5  1750436
    cab306d343914ee2ceccb5efb49f4c1108134dd753a113af5f2d4c9a90034c32
org.apache.kafka:kafka-clients:3.4.0  5049207
    48f38dede69bf2ed3709e270afb6b72fac869651fc258997727dba350333ac64
org.checkerframework:checker-qual:3.33.0  223979
    e316255bbfcd9fe50d165314b85abb2b33cb2a66a93c491db648e498a82c2de1
org.javassist:javassist:3.24.0-GA  777669
    aba81efa678b621203fb89aeff81d6f126f7a9dd709401e5609c42976684ae23
org.objenesis:objenesis:2.1  41755
    c74330cc6b806c804fd37e74487b4fe5d7c2750c5e15fbc6efa13bdee1bdef80
org.slf4j:slf4j-api:1.7.36  41125
    d3ef575e3e4979678dc01bf1dcce51021493b4d11fb7f1be8ad982877c16a1c0
org.snakeyaml:snakeyaml-engine:2.6  292124
    2652199af40c9aa2f1782400d2dfbbf4e5226208c4e05ddd4059c3d6d9cd1505
org.xerial.snappy:snappy-java:1.1.10.4  2112099
    55b30c94e5c4cc2d4b6976916098d0678a8a6cc7427fa8c875621bd94e731ac8
tools.profiler:async-profiler:2.9  567000
    6c4e993c28cf2882964cac82a0f96e81a325840043884526565017b2f62c5ba4
""")


if __name__ == "__main__":
    for text in _texts():
        sys.stdout.writelines([*text, "\n"])
