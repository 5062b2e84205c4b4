package as4peer;

import java.io.InputStream;
import java.io.StringReader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.ArrayList;
import java.util.List;

import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;

import com.helger.json.IJsonObject;
import com.helger.phase4.crypto.AS4CryptoFactoryInMemoryKeyStore;
import com.helger.phase4.crypto.IAS4CryptoFactory;

/** Keys and certificates from PEM files, in the key stores that phase4 and the JDK want. */
final class Keys {
  /** Of stores in memory only. */
  static final char[] PASSWORD = "in-memory".toCharArray();

  final IAS4CryptoFactory sign;
  final IAS4CryptoFactory crypt;
  /** The certificate to encrypt for. */
  final X509Certificate partner;

  /** "keys" holds one private key for everything, or one for signatures and one for decryption, each before its certificate. */
  Keys(IJsonObject site, Path base) throws Exception {
    List<PrivateKey> keys = privateKeys(base.resolve(Json.need(site, "keys")));
    List<X509Certificate> certificates = certificates(base.resolve(Json.need(site, "keys")));
    X509Certificate ca = certificates.get(certificates.size() - 1);
    partner = certificates(base.resolve(Json.need(site, "partnerEncryption"))).get(0);
    KeyStore own = empty();
    own.setKeyEntry("sign", keys.get(0), PASSWORD, new Certificate[] { certificates.get(0), ca });
    if (keys.size() > 1)
      own.setKeyEntry("enc", keys.get(1), PASSWORD, new Certificate[] { certificates.get(1), ca });
    KeyStore trust = empty();
    trust.setCertificateEntry("ca", ca);
    trust.setCertificateEntry("partner-sign", certificates(base.resolve(Json.need(site, "partnerSigning"))).get(0));
    trust.setCertificateEntry("partner-enc", partner);
    // phase4 hands out the password of exactly one alias per factory, hence one factory per key
    sign = new AS4CryptoFactoryInMemoryKeyStore(own, "sign", PASSWORD, trust);
    crypt = new AS4CryptoFactoryInMemoryKeyStore(own, keys.size() > 1 ? "enc" : "sign", PASSWORD, trust);
  }

  /** A store with one private key and its chain, all from one file. */
  static KeyStore identity(Path file) throws Exception {
    KeyStore ret = empty();
    ret.setKeyEntry("own", privateKeys(file).get(0), PASSWORD, certificates(file).toArray(new Certificate[0]));
    return ret;
  }

  static KeyStore trusted(Path file) throws Exception {
    KeyStore ret = empty();
    for (X509Certificate c : certificates(file))
      ret.setCertificateEntry(c.getSubjectX500Principal().getName(), c);
    return ret;
  }

  private static KeyStore empty() throws Exception {
    KeyStore ret = KeyStore.getInstance("PKCS12");
    ret.load(null, PASSWORD);
    return ret;
  }

  private static List<X509Certificate> certificates(Path file) throws Exception {
    List<X509Certificate> ret = new ArrayList<>();
    CertificateFactory factory = CertificateFactory.getInstance("X.509");
    for (Object o : objects(file))
      if (o instanceof org.bouncycastle.cert.X509CertificateHolder holder)
        try (InputStream in = new java.io.ByteArrayInputStream(holder.getEncoded())) {
          ret.add((X509Certificate) factory.generateCertificate(in));
        }
    return ret;
  }

  private static List<PrivateKey> privateKeys(Path file) throws Exception {
    List<PrivateKey> ret = new ArrayList<>();
    for (Object o : objects(file))
      if (o instanceof PrivateKeyInfo info)
        ret.add(KeyFactory.getInstance(info.getPrivateKeyAlgorithm().getAlgorithm().getId())
            .generatePrivate(new PKCS8EncodedKeySpec(info.getEncoded())));
    return ret;
  }

  private static List<Object> objects(Path file) throws Exception {
    List<Object> ret = new ArrayList<>();
    try (PEMParser parser = new PEMParser(new StringReader(Files.readString(file)))) {
      for (Object o; (o = parser.readObject()) != null;)
        ret.add(o);
    }
    return ret;
  }
}
