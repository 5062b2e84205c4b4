package as4peer;

import java.nio.file.Path;

import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

import com.helger.json.IJsonObject;

/** Our TLS identity, shown as server and as client, and the CA both sides have in common. */
final class Tls {
  private Tls() {}

  static SSLContext context(IJsonObject tls, Path base) throws Exception {
    KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
    keys.init(Keys.identity(base.resolve(Json.need(tls, "keys"))), Keys.PASSWORD);
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(Keys.trusted(base.resolve(Json.need(tls, "ca"))));
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
    return context;
  }
}
