package as4peer;

import java.util.Collection;

import javax.net.ssl.SSLContext;

import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.HttpConfiguration;
import org.eclipse.jetty.server.HttpConnectionFactory;
import org.eclipse.jetty.server.SecureRequestCustomizer;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.server.ServerConnector;
import org.eclipse.jetty.server.SslConnectionFactory;
import org.eclipse.jetty.util.ssl.SslContextFactory;
import org.eclipse.jetty.util.thread.QueuedThreadPool;

import com.helger.phase4.incoming.AS4ServerInitializer;
import com.helger.phase4.mgr.MetaAS4Manager;
import com.helger.web.scope.mgr.WebScopeManager;

import jakarta.servlet.ServletContextEvent;
import jakarta.servlet.ServletContextListener;

/** Jetty with one path for each site, over http and, with client certificates only, over https. */
final class Listeners {
  private final Server server = new Server(new QueuedThreadPool(64));
  private final ServerConnector plain;
  private final ServerConnector secured;

  /** Port 0 takes a free one; without a context there is no https. */
  Listeners(Collection<Site> sites, SSLContext tls) throws Exception {
    plain = connector(new ServerConnector(server));
    secured = tls == null ? null : connector(secured(tls));
    ServletContextHandler context = new ServletContextHandler();
    context.setContextPath("/");
    // phase4's global scope begins with the servlet context, and must exist before a servlet is made
    context.addEventListener(new ServletContextListener() {
      @Override
      public void contextInitialized(ServletContextEvent event) {
        MetaAS4Manager.setFactory(Duplicates.factory(sites));
        WebScopeManager.onGlobalBegin(event.getServletContext());
        AS4ServerInitializer.initAS4Server();
        Profile.registerAll();
        for (Site site : sites)
          context.addServlet(new ServletHolder(site.name, new Endpoint(site)), "/as4/" + site.name);
      }

      @Override
      public void contextDestroyed(ServletContextEvent event) {
        AS4ServerInitializer.shutdownAS4Server();
        WebScopeManager.onGlobalEnd();
      }
    });
    server.setHandler(context);
    server.start();
    // the same ports when they open again
    plain.setPort(plain.getLocalPort());
    if (secured != null)
      secured.setPort(secured.getLocalPort());
  }

  private ServerConnector secured(SSLContext tls) {
    SslContextFactory.Server factory = new SslContextFactory.Server();
    factory.setSslContext(tls);
    factory.setNeedClientAuth(true);
    HttpConfiguration http = new HttpConfiguration();
    // the certificate belongs to an address, and SNI knows no addresses
    http.addCustomizer(new SecureRequestCustomizer(false));
    return new ServerConnector(server, new SslConnectionFactory(factory, "http/1.1"), new HttpConnectionFactory(http));
  }

  private ServerConnector connector(ServerConnector connector) {
    connector.setHost("127.0.0.1");
    connector.setReuseAddress(true);
    server.addConnector(connector);
    return connector;
  }

  int port() {
    return plain.getPort();
  }

  int securedPort() {
    return secured == null ? 0 : secured.getPort();
  }

  /** Closes the plain listener, or opens it again on the same port. */
  void open(boolean open) throws Exception {
    if (open)
      plain.start();
    else
      plain.stop();
  }

  void stop() throws Exception {
    server.stop();
  }
}
